"""A service that runs in a thread, on a port of its own, and what its clients send and read."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tasks.train_controller.serve import Service, listen
from tests.train_controller.stand_in import StandIn

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MODEL = "stand-in"
HEAD = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


@dataclass(frozen=True)
class Served:
    """A service that runs, what it answers with, and a client of it."""

    service: Service
    controller: StandIn
    client: httpx.Client
    port: int

    def ask(self, prompt: str, tokens: int = 4, **more) -> httpx.Response:
        return self.client.post(COMPLETIONS, json=completion(prompt, tokens, **more))


@contextmanager
def serving(controller, name: str = MODEL, **limits) -> Iterator[Served]:
    service, listening = Service(controller, name, **limits), listen(0)
    port, ready = listening.getsockname()[1], threading.Event()
    thread = threading.Thread(target=service.run, args=(listening, ready.set))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            assert ready.wait(120)
            yield Served(service, controller, client, port)
    finally:
        service.stop()
        thread.join(120)
    assert not thread.is_alive()


@contextmanager
def asking(served: Served, prompt: str, tokens: int = 4, **more) -> Iterator[socket.socket]:
    """A connection that has asked, and goes away in the end whatever was answered."""
    body = json.dumps(completion(prompt, tokens, **more))
    with socket.create_connection(("127.0.0.1", served.port), timeout=120) as client:
        client.sendall(f"{HEAD}{len(body)}\r\n\r\n{body}".encode())
        yield client


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def completion(prompt: str, tokens: int = 4, **more) -> dict:
    return {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "temperature": 0} | more


def chat(*said: str, **more) -> dict:
    messages = [{"role": "user", "content": text} for text in said]
    return {"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0} | more


def events(response: httpx.Response) -> list[dict]:
    """The objects of a stream, which has to end as streams do."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *sent, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in sent]

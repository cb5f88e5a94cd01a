"""`python -m bench.serve_load`: clients that ask `espalier serve` without a pause, and whose answer each gets.

Every client has prompts of its own, half of its answers are streamed. Before the load each prompt is answered alone; an
answer under load that differs from what the same prompt got by the same action is counted as mixed, one that does not
come, or comes with another status than 200, as lost. One line of `<results>/serve-load.jsonl` for each start.
"""

import argparse
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from bench.lines import RESULTS
from bench.texts import add_line
from tasks.data.sources import read
from tasks.record.provenance import machine, versions

PATH = "/v1/completions"
PROMPT_WORDS, PROMPTS_EACH, TIMEOUT_S = 24, 4, 120.0
LOOKS = 12  # at the memory of the service, evenly over the time


@dataclass
class Load:
    """What the clients have met so far; `known`: the text of each prompt by each action."""

    model: str
    port: int
    tokens: int  # of an answer at most
    known: dict[tuple[str, str], str] = field(default_factory=dict)
    requests: int = 0
    lost: int = 0
    mixed: int = 0
    written: int = 0  # tokens
    actions: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, prompt: str, stream: bool) -> None:
        """One request, counted."""
        try:
            text, action, written = self._answer(prompt, stream)
        except (OSError, HTTPException, KeyError, ValueError) as error:
            say(f"lost: {error!r}")
            with self.lock:
                self.requests, self.lost = self.requests + 1, self.lost + 1
            return
        with self.lock:
            self.requests, self.written = self.requests + 1, self.written + written
            self.actions[action] = self.actions.get(action, 0) + 1
            self.mixed += self.known.setdefault((prompt, action), text) != text

    def _answer(self, prompt: str, stream: bool) -> tuple[str, str, int]:
        """Text, action, and the number of tokens. Raises ValueError for a refusal and for a stream that ends early."""
        asked = {"model": self.model, "prompt": prompt, "max_tokens": self.tokens, "temperature": 0}
        asked |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", PATH, json.dumps(asked), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{response.status} {content}")
        if not stream:
            reply = json.loads(content)
            return reply["choices"][0]["text"], reply["espalier"]["action"], reply["usage"]["completion_tokens"]
        *events, done, _ = content.split("\n\n")
        if done != "data: [DONE]":
            raise ValueError(f"the stream ends with {done!r}")
        *pieces, last, usage = [json.loads(event.removeprefix("data: ")) for event in events]
        text = "".join(piece["choices"][0]["text"] for piece in pieces)
        return text, last["espalier"]["action"], usage["usage"]["completion_tokens"]


def main() -> None:
    choice = parse(sys.argv[1:])
    prompts = prompts_of(choice.clients)
    with service(choice) as (process, port, model):
        alone = Load(model=model, port=port, tokens=choice.tokens)
        for prompt in (each for own in prompts for each in own):
            alone.ask(prompt, stream=False)
        if alone.lost:
            raise RuntimeError(f"{alone.lost} of {alone.requests} prompts got no answer alone")
        load = Load(model=model, port=port, tokens=choice.tokens, known=alone.known)
        started = time.monotonic()
        memory_bytes = press(load, prompts, choice.seconds, process)
        seconds = time.monotonic() - started
    line = {
        "command": shlex.join(["python", "-m", "bench.serve_load", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "model": model,
        "clients": choice.clients,
        "seconds": seconds,
        "requests": load.requests,
        "lost": load.lost,
        "mixed": load.mixed,
        "actions": load.actions,
        "tokens_per_s": load.written / seconds,
        "memory_bytes": memory_bytes,
    }
    add_line(choice.results / "serve-load.jsonl", line)
    print(json.dumps(line))


def prompts_of(clients: int) -> list[list[str]]:
    """Some for each client, all of them different: beginnings of built-in documents."""
    words = [text.split()[:PROMPT_WORDS] for text in read("docs", "evaluation").texts]
    found = list(dict.fromkeys(" ".join(each) for each in words if len(each) == PROMPT_WORDS))
    if len(found) < clients:
        raise ValueError(f"clients: {clients} given, valid is at most {len(found)}, one for each document")
    each = min(PROMPTS_EACH, len(found) // clients)
    return [found[client::clients][:each] for client in range(clients)]


@contextmanager
def service(choice: argparse.Namespace) -> Iterator[tuple[psutil.Process, int, str]]:
    """`espalier serve` in a process of its own, its port, and what it calls the model."""
    words = ["--model", choice.model, "--port", "0", "--queue", str(choice.clients), "--max-tokens", str(choice.tokens)]
    for name in ("profiles", "policy"):
        words += [f"--{name}", str(getattr(choice, name))] if getattr(choice, name) else []
    started = subprocess.Popen([sys.executable, "-m", "flows.cli", "serve", *words], stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        ready = started.stderr.readline()
        if "answers at http://127.0.0.1:" not in ready:
            raise RuntimeError(f"the service did not start: {ready.strip()}")
        threading.Thread(target=lambda: sys.stderr.writelines(started.stderr), daemon=True).start()
        port = int(ready.split("127.0.0.1:")[1].split("/")[0])
        yield psutil.Process(started.pid), port, ready.split()[1]
    finally:
        started.terminate()
        started.wait()


def press(load: Load, prompts: Sequence[Sequence[str]], seconds: float, process: psutil.Process) -> list[int]:
    """Each client asks again as soon as it has an answer; return when all have their last.

    What is returned is how much memory `process` had at the start, LOOKS times meanwhile, and at the end, in bytes.
    """
    until = time.monotonic() + seconds

    def client(own: Sequence[str]) -> None:
        number = 0
        while time.monotonic() < until:
            load.ask(own[number % len(own)], stream=number % 2 == 1)
            number += 1

    clients = [threading.Thread(target=client, args=(own,)) for own in prompts]
    memory_bytes = [process.memory_info().rss]
    for each in clients:
        each.start()
    for _ in range(LOOKS):
        time.sleep(seconds / LOOKS)
        memory_bytes.append(process.memory_info().rss)
    for each in clients:
        each.join()
    return [*memory_bytes, process.memory_info().rss]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.serve_load", description=__doc__)
    parser.add_argument("--model", default="builtin", help="as of `espalier serve` (builtin)")
    parser.add_argument("--profiles", type=Path, help="as of `espalier serve`")
    parser.add_argument("--policy", type=Path, help="as of `espalier serve`")
    parser.add_argument("--clients", type=int, default=8, help="that ask at the same time (8)")
    parser.add_argument("--seconds", type=float, default=120.0, help="for which they do (120)")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer at most (32)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the lines (bench/results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

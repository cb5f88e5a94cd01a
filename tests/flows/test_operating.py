"""What `espalier up` arranges with Prefect's server holds: limits, and who is told of a failure."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from queue import Queue

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.cli import build_parser
from flows.operating import POOL, limit_gpu_stages, make_pool, tell_of_failures
from tasks.stage import Stages, stage

LONG_S = 0.5


@pytest.fixture
def client(artifacts: Path) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def inbox() -> Iterator[tuple[str, Queue]]:
    """An address of this machine, and what is sent there."""
    received: Queue = Queue()

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Inbox)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


@contextmanager
def telling(client: SyncPrefectClient, url: str) -> Iterator[None]:
    tell_of_failures(client, url)
    try:
        yield
    finally:
        tell_of_failures(client, None)


@flow(name="failing")
def fail() -> None:
    raise RuntimeError('the disk is "full" & <so>\nis the cellar')


def test_a_failed_run_is_told_to_the_address_and_to_it_alone(client: SyncPrefectClient, inbox: tuple[str, Queue]):
    url, received = inbox
    with telling(client, "http://127.0.0.1:9/an-earlier-one"), telling(client, url):
        assert len(client.read_automations()) == 1
        state = fail(return_state=True)
        (told,) = received.get(timeout=60).items()
        run = client.read_flow_run(state.state_details.flow_run_id)
        assert told == ("text", f"espalier: failing {run.name}: {state.message}")
        assert "cellar" in told[1]
    assert client.read_automations() == []
    fail(return_state=True)
    assert received.empty()


def test_stages_on_a_gpu_take_turns_and_others_do_not_wait(client: SyncPrefectClient):
    spans: dict[str, list[tuple[float, float]]] = {"cpu": [], "cuda": []}

    @stage()
    def compute(number: int, device: str) -> int:
        begun = time.perf_counter()
        time.sleep(LONG_S)
        spans[device].append((begun, time.perf_counter()))
        return number

    @flow(name="computing")
    def run(number: int, device: str) -> int:
        return Stages()(compute, number=number, device=device)

    limit_gpu_stages(client, 2)
    limit_gpu_stages(client, 1)
    calls = [(copy_context().run, run, number, device) for device in spans for number in range(2)]  # settings too
    runs = [threading.Thread(target=call, args=words) for call, *words in calls]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert [len(of_device) for of_device in spans.values()] == [2, 2]
    assert all(before[1] <= after[0] for before, after in pairwise(sorted(spans["cuda"])))


def test_the_limit_of_runs_is_that_of_the_latest_up(client: SyncPrefectClient):
    for runs in (None, 2, None):
        make_pool(client, runs)
        pool = client.read_work_pool(POOL)
        assert (pool.type, pool.concurrency_limit, pool.is_paused) == ("process", runs, False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpus", "0"), "'0' given, valid is a whole number, 1 or more"),
        (("--runs", "two"), "'two' given, valid is a whole number, 1 or more"),
        (("--notify", "chat"), "'chat' given, valid is an address such as https"),
    ],
)
def test_a_mistake_in_the_words_of_up_is_told(words: tuple[str, ...], says: str):
    with pytest.raises(ValueError, match=says):
        build_parser().parse_args(["up", *words])

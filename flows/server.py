"""The Prefect server that a command talks to: yours, that of `espalier up`, or one of its own while it runs.

Prefect would start a temporary server by itself, but that one outlives a killed run. Ours reads a pipe from the command
that started it: when the command ends, however it ends, the pipe closes and the server goes. It serves the interface.
Should it end before the command, another takes its place, and the run goes on where it waits for it.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from flows.loopback import OnlyFromHere
from flows.terminal import say
from tasks.record import home
from tasks.record.disk import locked

STARTUP_S = 120.0


@contextmanager
def prefect_server() -> Iterator[str]:
    """Yield the address of the interface; what the body runs with Prefect talks to this server."""
    given = os.environ.get("PREFECT_API_URL") or _address_of_up()
    if given:
        with _talking_to(given):
            yield given.removesuffix("/api")
        return
    port = free_port()
    process, url = start_server(port)  # ends with this process, after Prefect has sent its last log lines
    threading.Thread(target=_start_again, args=(process, port), daemon=True).start()
    with _talking_to(f"{url}/api"):
        yield url


@contextmanager
def _talking_to(api_url: str) -> Iterator[None]:
    """Prefect reads the environment once, when it is imported: afterwards only this changes its mind.

    Raises RuntimeError where the server is lost on the way.
    """
    from httpx import TransportError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api_url}):
        try:
            yield
        except TransportError as error:  # after all the times that Prefect tries
            raise RuntimeError(f"Prefect's server at {api_url} cannot be reached any more: {error}") from error


def start_server(port: int) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server that ends with this process; return it when it answers. RuntimeError if it does not."""
    shared = home.root() / "prefect"
    shared.mkdir(parents=True, exist_ok=True)
    with locked(shared):  # two first servers would both make the tables of one database, and one of them fails
        return _started(port)


def _started(port: int) -> tuple[subprocess.Popen[bytes], str]:
    url = f"http://127.0.0.1:{port}"
    log = home.root() / "prefect-server.log"
    environment = os.environ | {"PREFECT_UI_API_URL": f"{url}/api"}
    command = [sys.executable, "-m", "flows.server", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    give_up = time.monotonic() + STARTUP_S
    while not answers(f"{url}/api/health"):
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            raise RuntimeError(f"Prefect's server did not start; its words are in {log}")
        time.sleep(0.1)
    return process, url


def _start_again(process: subprocess.Popen[bytes], port: int) -> None:
    """Whenever the server ends, start one at the same port upon the same database, in the time that Prefect tries."""
    while True:
        process.wait()
        say("Prefect's server was stopped; starting it again")
        try:
            process, _ = start_server(port)
        except RuntimeError as failure:
            say(str(failure))
            return


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as response:
            return response.status == 200
    except (URLError, TimeoutError, ConnectionError):
        return False


def address_file() -> Path:
    """Where `espalier up` says which server it runs."""
    return home.root() / "prefect" / "server.json"


def _address_of_up() -> str | None:
    if not address_file().is_file():
        return None
    url = json.loads(address_file().read_text(encoding="utf-8"))["api_url"]
    return url if answers(f"{url}/health") else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(port: int) -> None:
    """Run the server in this process until it is told to stop or standard input closes."""
    import uvicorn
    from prefect.server.api.server import create_app

    # clients are silent while a stage computes; keep their connections open meanwhile
    app = OnlyFromHere(create_app(), port)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_keep_alive=24 * 3600)
    server = uvicorn.Server(config)

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))

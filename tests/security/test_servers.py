"""Every server listens on loopback alone, and answers no page of another site."""

import ast
import asyncio
import os
import re
from pathlib import Path
from urllib.request import proxy_bypass

import pytest

from flows.environment import SETTINGS, use_project_settings
from flows.loopback import OnlyFromHere
from tasks.train_controller import serve

ROOT = Path(__file__).parents[2]
ANYWHERE = re.compile(r"0\.0\.0\.0|\[::\]|'::'|\"::\"")
PLACES = [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py"), ROOT / "Makefile", ROOT / "prefect.yaml"]


def asked(kind: str, host: str, origin: str | None) -> str:
    """Whether the application behind was reached, and if not what came back."""
    heard: list[str] = []

    async def app(scope, receive, send) -> None:
        heard.append("reached")

    async def send(message) -> None:
        heard.append(f"{message['type']} {message.get('status', message.get('code', ''))}".strip())

    async def receive() -> dict:
        return {}

    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin is not None else [])]
    asyncio.run(OnlyFromHere(app, 4200)({"type": kind, "headers": headers}, receive, send))
    return heard[0]


@pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200"])
@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:4200", "http://localhost:4200"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_programs_and_the_own_interface_are_answered(kind, host, origin):
    assert asked(kind, host, origin) == "reached"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:4200", "https://a-stranger.example"),
        ("127.0.0.1:4200", "null"),  # a page from a file, or in a sandboxed frame
        ("127.0.0.1:4200", "http://127.0.0.1:8000"),  # another program's page
        ("127.0.0.1:4200", "http://127.0.0.1:4200.a-stranger.example"),
        ("a-stranger.example:4200", None),  # a name that leads to 127.0.0.1
        ("", None),
    ],
)
def test_pages_of_others_are_not(host, origin):
    assert asked("http", host, origin) == "http.response.start 403"
    assert asked("websocket", host, origin) == "websocket.close 1008"


def test_nothing_listens_beyond_loopback():
    for path in PLACES:
        assert not ANYWHERE.search(path.read_text(encoding="utf-8")), path


def test_whoever_starts_a_server_names_loopback():
    """uvicorn, a socket's bind, and a `--host` of a program that is started."""
    hosts: list[str] = []
    for path in (path for path in PLACES if path.suffix == ".py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            words = [ast.unparse(each) for each in call.args]
            hosts += [ast.unparse(word.value) for word in call.keywords if word.arg == "host"]
            hosts += [words[words.index("'--host'") + 1]] if "'--host'" in words else []
            if ast.unparse(call.func).endswith(".bind"):
                hosts.append(words[0].strip("()").split(",")[0])
    assert len(hosts) >= 4
    assert set(hosts) <= {"'127.0.0.1'", "LOOPBACK"}


def test_the_service_listens_on_loopback():
    with serve.listen(0) as listening:
        assert listening.getsockname()[0] == serve.LOOPBACK == "127.0.0.1"


def test_what_is_said_to_a_server_of_this_machine_passes_no_proxy(monkeypatch, tmp_path):
    for name in (*SETTINGS, "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"):  # put back for other tests
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://me:password@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example,localhost")
    monkeypatch.setenv("no_proxy", "")
    use_project_settings()
    assert os.environ["NO_PROXY"] == "intranet.example,localhost,127.0.0.1"
    assert proxy_bypass("127.0.0.1:4200")
    assert not proxy_bypass("huggingface.co")

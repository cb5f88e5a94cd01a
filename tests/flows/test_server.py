"""The server beside a command comes back when somebody kills it, and goes with the command."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from flows.server import answers, free_port, prefect_server, start_server


@pytest.mark.slow
def test_a_server_that_is_killed_is_started_again_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_server() as url:
        port = url.rpartition(":")[2]
        servers = [each for each in psutil.Process().children() if each.cmdline()[-2:] == ["flows.server", port]]
        servers[0].kill()
        give_up = time.monotonic() + 300
        while not answers(f"{url}/api/health"):
            assert time.monotonic() < give_up
            time.sleep(0.2)


@pytest.mark.slow
def test_two_first_servers_of_a_home_both_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with ThreadPoolExecutor(2) as both:
        started = list(both.map(start_server, (free_port(), free_port())))
    assert all(answers(f"{url}/api/health") for _, url in started)
    for process, _ in started:
        process.kill()


def test_a_server_that_is_lost_for_good_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    lost = r"Prefect's server at http://127.0.0.1:9/api cannot be reached any more: no answer"
    with pytest.raises(RuntimeError, match=lost), prefect_server():
        raise httpx.ConnectError("no answer")

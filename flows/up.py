"""`espalier up`: Prefect's server and a worker, and MLflow, on loopback, until Ctrl-C."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from flows.server import address_file, answers, start_server
from tasks.record import home

PREFECT_PORT, MLFLOW_PORT = 4200, 5000


def say_up(made: argparse.ArgumentParser) -> None:
    made.add_argument("--gpus", type=_number, default=1, help="stages on a GPU at once, of all runs together (1)")
    made.add_argument("--runs", type=_number, help="runs at once on the worker; without it as many as are started")
    made.add_argument("--notify", type=_address, metavar="URL", help="is sent a line when a run fails; else nobody is")


def run_up(arguments: argparse.Namespace) -> int:
    """Start everything, deploy the flows of prefect.yaml, say where all is, and wait. Exit code 0 after Ctrl-C."""
    project = Path("prefect.yaml").resolve()
    if not project.is_file():
        raise ValueError("up: run this in the project's root, where prefect.yaml is")
    for name, port in (("Prefect", PREFECT_PORT), ("MLflow", MLFLOW_PORT)):
        if answers(f"http://127.0.0.1:{port}/health") or answers(f"http://127.0.0.1:{port}/api/health"):
            raise ValueError(f"up: port {port} is taken; is {name} running already?")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl-C
    server, prefect_url = start_server(PREFECT_PORT)
    os.environ |= {"PREFECT_API_URL": f"{prefect_url}/api", "ESPALIER_PROJECT": str(project.parent)}
    os.environ |= {"ESPALIER_ARTIFACTS": str(home.root())}  # the worker starts its runs in folders of their own
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # ten idle processes, for features not used here
    children = [server]
    try:
        children.append(_start_mlflow())
        pool = _arrange(f"{prefect_url}/api", arguments)
        _prefect("deploy", "--all")
        children.append(_start("prefect", "worker", "start", "--pool", pool))
        address_file().write_text(json.dumps({"api_url": f"{prefect_url}/api"}), encoding="utf-8")
        print(f"Prefect   {prefect_url}   worker on pool {pool!r}; `espalier` commands now report here")
        print(f"MLflow    http://127.0.0.1:{MLFLOW_PORT}")
        print("Ctrl-C stops all of them.", flush=True)
        while all(child.poll() is None for child in children):
            time.sleep(1)
        raise RuntimeError(
            f"stage up: a server stopped; its words are in {home.root()}/prefect-server.log and mlflow.log"
        )
    except KeyboardInterrupt:
        return 0
    finally:
        address_file().unlink(missing_ok=True)
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.wait()


def _arrange(api_url: str, arguments: argparse.Namespace) -> str:
    """Tell the server what it is to hold to; the name of the pool."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.operating import POOL, limit_gpu_stages, make_pool, tell_of_failures

    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        make_pool(client, arguments.runs)
        limit_gpu_stages(client, arguments.gpus)
        tell_of_failures(client, arguments.notify)
    return POOL


def _start_mlflow() -> subprocess.Popen[bytes]:
    store = f"sqlite:///{home.root() / 'mlflow.db'}"
    child = _start(
        "mlflow", "server", "--host", "127.0.0.1", "--port", str(MLFLOW_PORT), "--backend-store-uri", store,
        "--artifacts-destination", str(home.root() / "mlruns"),
    )  # fmt: skip
    while not answers(f"http://127.0.0.1:{MLFLOW_PORT}/health"):
        if child.poll() is not None:
            raise RuntimeError(f"stage up: MLflow did not start; its words are in {home.root() / 'mlflow.log'}")
        time.sleep(0.2)
    return child


def _start(program: str, *words: str) -> subprocess.Popen[bytes]:
    with (home.root() / f"{program}.log").open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", program, *words], stdout=output, stderr=output)


def _prefect(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"stage up: prefect {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} given, valid is a whole number, 1 or more")
    return int(text)


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} given, valid is an address such as https://chat.example/hooks/x")
    return text

"""`espalier up`: Prefect's server and a worker, and MLflow, on loopback, until Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows.server import address_file, answers, start_server
from tasks.record import home

PREFECT_PORT, MLFLOW_PORT = 4200, 5000
POOL = "espalier"


def up() -> int:
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
        _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        _prefect("deploy", "--all")
        children.append(_start("prefect", "worker", "start", "--pool", POOL))
        address_file().write_text(json.dumps({"api_url": f"{prefect_url}/api"}), encoding="utf-8")
        print(f"Prefect   {prefect_url}   worker on pool {POOL!r}; `espalier` commands now report here")
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

"""Settings of the libraries that run a flow, made before they are imported. What the user has set is left alone."""

import os
from pathlib import Path

from tasks.record import home

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # its telemetry may find the database locked
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # a failure is one line of ours
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TOKENIZERS_PARALLELISM": "false",
}


def use_project_settings() -> None:
    """Prefect's home and results live in the artifacts folder, so that one folder holds all that a run leaves."""
    places = {
        "PREFECT_HOME": str(home.root() / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home.root() / "results"),
    }
    for name, value in (SETTINGS | places).items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy of the network knows nothing of the servers of this machine
        known = os.environ.get(name, "").split(",")
        os.environ[name] = ",".join(dict.fromkeys([*filter(None, known), "127.0.0.1", "localhost"]))
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # or Prefect warns when it is imported

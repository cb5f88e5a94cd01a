"""Tokens and passwords reach no row, no parameter in MLflow, no error and no line on the terminal."""

import dataclasses
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from flows.terminal import say
from tasks.model.load import resolve
from tasks.record import metrics
from tasks.record.runs.flat import text_of
from tasks.secret import without_secrets
from tasks.stage import StageFailed
from tests.record.plausible import CONTEXT, record_run

SECRETS = {
    "HF_TOKEN": "a-token-of-the-hub",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "AWS_SESSION_TOKEN": "a-session-of-aws",
    "MLFLOW_TRACKING_PASSWORD": "opensesame",
}
FORMS = ("hf_" + "a1B2" * 8, "AKIA" + "A1B2" * 4, "ghp_" + "a1B2" * 9)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("secret", [*SECRETS.values(), *FORMS])
def test_a_secret_is_hidden_and_what_stands_around_it_stays(secret):
    assert without_secrets(f"before {secret} after") == "before *** after"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("https://me:opensays@hub.example/a b", "https://***@hub.example/a b"),
        (
            "s3://key:secret@bucket/store and http://127.0.0.1:4200/api",
            "s3://***@bucket/store and http://127.0.0.1:4200/api",
        ),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        (
            "espalier oneshot --model ./my-llama --pattern 50%@matrix",
            "espalier oneshot --model ./my-llama --pattern 50%@matrix",
        ),
    ],
)
def test_of_an_address_the_password_alone_is_hidden(said, left):
    assert without_secrets(said) == left


def test_a_short_word_is_no_secret(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "docs")
    assert without_secrets("--calibration docs") == "--calibration docs"


def test_rows_and_parameters_hold_none(tmp_path):
    told = f"espalier oneshot --model https://me:opensays@hub.example/{SECRETS['HF_TOKEN']}"
    record_run(dataclasses.replace(CONTEXT, model=told))
    (row,) = metrics.query("select model from runs")
    assert row["model"] == "espalier oneshot --model https://***@hub.example/***"
    assert text_of({"model": told}) == '{"model": "espalier oneshot --model https://***@hub.example/***"}'


def test_errors_and_the_terminal_tell_none(capsys):
    failed = StageFailed("publish", RuntimeError("no answer of http://me:opensays@proxy.example:3128\n[SQL: ...]"))
    assert str(failed) == "stage publish: no answer of http://***@proxy.example:3128"
    say("watch this run at http://me:opensays@prefect.example/api")
    assert capsys.readouterr().err == "espalier: watch this run at http://***@prefect.example/api\n"


class Refusing(BaseHTTPRequestHandler):
    """A mirror of the hub that refuses, and repeats in its answer what it was asked with."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Message", f"no such user: {self.headers.get('authorization')}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


def test_a_mirror_that_wants_a_password_is_not_quoted_with_it(monkeypatch):
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://me:opensays@127.0.0.1:{server.server_port}")
        monkeypatch.setattr("tasks.model.load.hub_answers", lambda: True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises((ValueError, ConnectionError)) as error:
            resolve("somebody/some-model")
        server.shutdown()
    assert "opensays" not in str(error.value)
    assert not any(secret in str(error.value) for secret in SECRETS.values())

"""A version is made once more in an empty store: the same bytes, or what has changed since is named."""

import json
from pathlib import Path

import pytest

from flows.cli import main
from flows.rebuilding import Rebuilt, verdict
from tasks.record import home
from tasks.record.metrics import query
from tasks.record.runs.lineage import lineage_of
from tests.record.plausible_benchmarks import record_benchmarks
from tests.record.versions import record_version

RUNS = "select run, registered_version from runs"


@pytest.fixture
def made(artifacts: Path, tiny_model: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Path:
    """The text that a registered version was calibrated on."""
    text = tmp_path / "calibration.jsonl"
    text.write_text("".join(stories.read_text().splitlines(keepends=True)[:20]))
    words = {"model": tiny_model, "pruner": "wanda", "pattern": "2:4", "samples": 4, "window": 32}
    words |= {"calibration": text, "evaluation": f"{stories}[36:]"}
    given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["oneshot", *given, "--no-speed"]) == 0
    capsys.readouterr()
    return text


def rebuild(capsys: pytest.CaptureFixture, exit_code: int) -> tuple[dict, str]:
    [version] = {row["registered_version"] for row in query(RUNS)}
    assert main(["rebuild", version, "--json"]) == exit_code
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), printed.err.splitlines()[-1]


def stored(artifacts: Path) -> list[Path]:
    return sorted(path for path in (artifacts / "store").rglob("*") if path.is_dir())


@pytest.mark.slow
def test_a_version_comes_out_with_the_same_bytes_or_says_what_changed(
    made: Path, artifacts: Path, capsys: pytest.CaptureFixture
):
    before = stored(artifacts)
    found, said = rebuild(capsys, 0)
    assert found["same"]
    assert found["differs"] == {}
    assert {kind: stored == again for kind, (stored, again) in found["made"].items()} == {
        "checkpoint": True,
        "packed": True,
    }
    assert said.endswith("came out with the same bytes")
    assert home.root() == artifacts
    assert len(query(RUNS)) == 1  # what it did is not among the runs
    assert stored(artifacts) == before

    made.write_text(made.read_text() + json.dumps({"text": "cut cut cut " * 40}) + "\n")
    found, said = rebuild(capsys, 1)
    assert not found["same"]
    assert found["differs"].keys() == {"data"}
    [changed] = found["differs"]["data"]
    assert changed.startswith("text, calibration ")
    assert f"came out different: {changed} (data) changed since" in said


@pytest.mark.parametrize(
    ("again", "differs", "says"),
    [
        ("c", {}, "with the same bytes"),
        ("c", {"code": {"pack": ("1", "2")}}, "with the same bytes, although pack (code) changed"),
        ("d", {"libraries": {"torch": ("1", "2")}}, "different: torch (libraries) changed since"),
        ("d", {}, "different, and no input has changed: this computation does not repeat itself here"),
    ],
)
def test_the_verdict_names_what_has_changed_and_nothing_else(artifacts: Path, again: str, differs: dict, says: str):
    record_version()
    rebuilt = Rebuilt(made={"packed": ("c", again)}, differs=differs)
    assert verdict(lineage_of("r1"), rebuilt) == f"stories/1 came out {says}"


def test_a_run_that_registers_nothing_cannot_be_rebuilt(artifacts: Path, capsys: pytest.CaptureFixture):
    record_benchmarks()
    assert main(["rebuild", "b1"]) == 2
    assert "b1 is a run of evaluate, which registers no model" in capsys.readouterr().err

"""A sweep on several processes leaves what it leaves on one."""

from pathlib import Path

import pytest

from flows.cli import main
from flows.presets import grid
from flows.runners import Running
from flows.sweep import sweep, sweep_on
from tasks.record.metrics import query


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--runner", "slurm"], ("runner", "here", "dask")),
        (["--workers", "2"], ("workers", "dask")),
        (["--runner", "dask", "--workers", "0"], ("workers", "0")),
    ],
)
def test_what_cannot_be_meant_is_one_line(words: list[str], says: tuple[str, ...], capsys: pytest.CaptureFixture):
    assert main(["sweep", "--preset", "demo", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in says)


def test_a_runner_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^runner: dask is not installed; pip install 'espalier\[dask\]'$"):
        Running(runner="dask").check()


@pytest.mark.slow
def test_two_processes_of_dask_leave_the_rows_of_one(artifacts: Path, tiny_model: Path, stories: Path, tmp_path: Path):
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    shared = texts | {"model": str(tiny_model), "samples": 8, "window": 32, "speed": False}
    points = grid("test", ("magnitude", "wanda"), ("50%", "2:4"), **shared)
    at_once = sweep_on(points, Running(runner="dask", workers=2))
    found = {row["run"]: row for row in query("select run, sweep, sweep_points, method, pattern from runs")}
    assert {point.run for point in at_once.outcomes} == {*found}
    assert {(row["sweep"], row["sweep_points"]) for row in found.values()} == {(at_once.run, 4)}
    named = [(found[point.run]["method"], found[point.run]["pattern"]) for point in at_once.outcomes]
    assert named == [(point.name, point.pattern) for point in points.points]
    assert query("select count(*) as n from linears") == [{"n": 4 * 14}]

    again = sweep(points)  # one after the other, all of it found again
    assert [point.result for point in again.outcomes] == [point.result for point in at_once.outcomes]
    assert not query(
        "select * from stages join runs using (run) where sweep = $sweep and not cached", {"sweep": again.run}
    )

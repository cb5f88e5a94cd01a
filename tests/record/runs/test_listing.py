"""The list of runs: complete, and in a terminal no wider than it."""

import dataclasses

import pytest

from tasks.record.runs.listing import runs_table
from tests.record.plausible import CONTEXT, evaluation, record_run
from tests.record.plausible_cuts import CUT, record_cut
from tests.record.reading import cells


def record(run: str, sweep: str | None = None, minute: int = 0, **changes: str) -> None:
    context = dataclasses.replace(CONTEXT, run=run, recorded_at=f"2026-01-02T03:{minute:02}:05+00:00", **changes)
    record_run(context, sweep=sweep, pruned=evaluation(ppl=20.123456789, sparsity=0.49987))


def test_numbers_are_rounded_and_the_latest_comes_first():
    record("r1")
    record("r2", minute=1, pattern="50%")
    assert cells(runs_table())[0] == ["Run", "Model", "Method", "Pattern", "Dense", "Perplexity", "Sparsity"]
    assert cells(runs_table())[2:] == [
        ["r2", "stories", "wanda", "50%", "6.050", "20.12", "50.0 %"],
        ["r1", "stories", "wanda", "2:4", "6.050", "20.12", "50.0 %"],
    ]


def test_the_runs_of_a_sweep_stand_below_it():
    record("r1")
    record("r2", sweep="s1", minute=1)
    record("r3", sweep="s1", minute=2)
    assert [row[:3] for row in cells(runs_table())[2:]] == [
        ["s1", "stories", "sweep of 2 runs"],
        ["· r3", "stories", "wanda"],
        ["· r2", "stories", "wanda"],
        ["r1", "stories", "wanda"],
    ]


def test_a_sweep_has_one_line_also_where_another_run_ended_among_its_own():
    record("r1", sweep="s1", minute=1)
    record("r2", minute=2)
    record("r3", sweep="s1", minute=3)
    assert [row[0] for row in cells(runs_table())[2:]] == ["s1", "· r3", "· r1", "r2"]


@pytest.mark.parametrize(
    ("points", "says"),
    [(None, "sweep of 1 run"), (1, "sweep of 1 run"), (7, "sweep of 1 of 7 runs, not finished")],
)
def test_a_sweep_that_was_stopped_says_so(points: int | None, says: str):
    record_run(sweep="s1", sweep_points=points)
    assert cells(runs_table())[2][2] == says


def test_where_a_model_was_cut_its_parameters_are_named():
    record("r1")
    record_cut(dataclasses.replace(CUT, recorded_at="2026-01-02T03:09:05+00:00"), parameters=2_361_000)
    assert cells(runs_table())[0][-2:] == ["Sparsity", "Parameters"]
    assert [row[-2:] for row in cells(runs_table())[2:]] == [["0.0 %", "0.75×"], ["50.0 %", "1.00×"]]


LONG = "sparsegpt,damp=0.02,block=64+refit,drift=0.5+reconstruct,epochs=10+permute+group on {}_proj"
MODEL = "a-model-with-a-long-name-instruct"


def record_long() -> None:
    """Two runs of a sweep that differ at the end of a long name."""
    for run, linear in (("20260102-030405-abcd12", "q"), ("20260102-030405-abcd34", "v")):
        record(run, sweep="20260102-030400-ef0156", method=LONG.format(linear), model=MODEL, pattern="50%@matrix")


def test_no_line_is_wider_than_a_terminal_and_names_keep_both_ends():
    record_long()
    assert {len(line) for line in runs_table(120).splitlines()} == {120}
    of_q, of_v = cells(runs_table(120))[3:]
    assert of_v[1] == "a-model…instruct"
    assert of_v[2].startswith("sparsegpt,da")
    assert of_v[2].endswith("up on v_proj")
    assert of_q[2].endswith("up on q_proj")
    assert len(of_v[2]) == 25


def test_elsewhere_than_in_a_terminal_names_are_whole():
    record_long()
    assert [row[1:3] for row in cells(runs_table())[3:]] == [[MODEL, LONG.format(linear)] for linear in ("q", "v")]


def test_before_the_first_run_there_are_no_rows():
    assert runs_table() == "no rows\n"

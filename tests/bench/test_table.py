"""The command line of the benchmark, its tables, and what a process tells about its memory."""

import json

import pytest
import torch

from bench.__main__ import parse
from bench.pruning import PruningRow
from bench.selection import SelectionRow
from bench.sides import ESPALIER, ONE_PASS, SAME_ORDER, TEXTBOOK
from bench.sweep import SweepRow
from bench.table import Bench, write
from tasks.peak import resident_bytes

PRUNING = PruningRow(
    model="tiny",
    method="wanda",
    pattern="2:4",
    times_s={TEXTBOOK: [4.0, 4.0], SAME_ORDER: [2.0, 2.0], ONE_PASS: [1.0, 1.0]},
    peak_bytes={TEXTBOOK: 2**22, SAME_ORDER: 2**21, ONE_PASS: 2**20},
    iou=1.0,
)
SELECTION = SelectionRow(
    model="tiny",
    shape=(2, 4),
    method="wanda",
    pattern="2:4",
    times_s={TEXTBOOK: [0.004, 0.004], ESPALIER: [0.001, 0.001]},
    iou=1.0,
)
SWEEP = SweepRow(model="tiny", pattern="2:4", times_s={TEXTBOOK: [0.03, 0.03], ESPALIER: [0.01, 0.01]}, iou=1.0)
BENCH = Bench(
    command="python -m bench",
    date="2030-01-02T03:04:05+00:00",
    machine="{}",
    versions="{}",
    threads=2,
    rounds=2,
    load=(0.0, 1.0),
    skipped=("stories3M, stories3M absent",),
    selections=(SELECTION,),
    sweeps=(SWEEP,),
    prunings=(PRUNING,),
)


def test_a_bench_is_stored_raw_and_as_tables(tmp_path):
    text = write(BENCH, tmp_path / "results", "oneshot")
    assert "| tiny | wanda | 2:4 | 1.00000 | textbook | 4.00 |  | 4.0 |  |" in text
    assert "|  |  |  |  | espalier, by group | 1.00 | 4.00 (4.00 to 4.00) | 1.0 | 0.25 |" in text
    assert "| tiny | 2 × 4 | 2:4 | wanda | 4.00 | 1.00 | 4.00 (4.00 to 4.00) | 1.00000 |" in text
    assert "| tiny | 2:4 | 30.00 | 10.00 | 3.00 (3.00 to 3.00) | 1.00000 |" in text
    assert "Skipped: stories3M, stories3M absent." in text
    assert (tmp_path / "results" / "oneshot.md").read_text() == text
    stored = json.loads((tmp_path / "results" / "2030-01-02-oneshot.json").read_text())
    assert stored["prunings"][0]["times_s"][TEXTBOOK] == [4.0, 4.0]


def test_the_command_line_refuses_what_it_cannot_do(capsys):
    assert parse([]).rounds == 6
    assert parse(["--quick"]).rounds == 2
    for wrong in (["--rounds", "1"], ["--models", "gpt5"], ["--quick", "--rounds", "4"]):
        with pytest.raises(SystemExit) as stopped:
            parse(wrong)
        assert stopped.value.code == 2
    assert "'1' given, valid is a whole number from 2" in capsys.readouterr().err


def test_the_resident_set_grows_with_what_is_held():
    before = resident_bytes("VmRSS")
    held = torch.ones(2**25)  # more than malloc takes from what was freed
    assert resident_bytes("VmRSS") - before >= 0.9 * held.nbytes
    assert resident_bytes("VmHWM") >= resident_bytes("VmRSS")

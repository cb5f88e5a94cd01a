"""Cells of a benchmark: each measured once, whatever has been stopped and started in between."""

import json
from dataclasses import dataclass
from statistics import stdev

import pytest

from bench.cells import left, run_cells
from bench.spread import digits, spread
from bench.texts import read_lines


@dataclass(frozen=True, kw_only=True)
class Cell:
    name: str
    share: float = 0.5


CELLS = [Cell(name=name) for name in "abc"]


def test_a_cell_whose_line_is_there_is_not_done_again_and_one_that_was_interrupted_is(tmp_path, capsys):
    file, done = tmp_path / "lines.jsonl", []

    def measure(cell):
        if cell.name == "b" and len(done) == 1:
            raise KeyboardInterrupt
        done.append(cell.name)
        return {"ppl": 2.0}

    with pytest.raises(KeyboardInterrupt):
        run_cells(file, "model", left(file, CELLS, Cell, done="cell"), measure)
    done.append("stopped")
    run_cells(file, "model", left(file, CELLS, Cell, done="cell"), measure)
    assert done == ["a", "stopped", "b", "c"]
    assert [line["cell"]["name"] for line in read_lines(file)] == ["a", "b", "c"]
    assert left(file, CELLS, Cell, done="cell") == []
    assert "model 1 of 3" in capsys.readouterr().err


def test_lines_of_circumstances_and_of_cells_from_before_a_field_was_added_are_read(tmp_path):
    file = tmp_path / "lines.jsonl"
    lines = [{"command": "c"}, {"cell": {"name": "a"}, "ppl": 1.0}, {"cell": {"name": "b"}, "not_run": "no index"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [cell.name for cell in left(file, CELLS, Cell, done="cell")] == ["c"]
    assert [cell.name for cell in left(file, CELLS, Cell, done="ppl")] == ["b", "c"]


def test_digits_follow_the_size_of_what_is_shown():
    assert [digits(value, value) for value in (9.876, 98.76, 987.6, 98765.4)] == ["9.88", "98.76", "987.6", "98,765"]
    ppls = [100.0, 104.0, 111.0]
    assert spread(ppls) == f"105.0 ± {stdev(ppls):.1f}"
    assert spread([7.0]) == "7.00 (1)"

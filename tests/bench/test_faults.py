"""What is asked of a disturbed run, and the table of it."""

import pytest

from bench.faults.__main__ import KILLS, Cell, cells
from bench.faults.subject import GO_ON, Ended
from bench.faults.table import markdown

TOLD = f"espalier: tokenize: 0.1 s\nespalier: stage prune: No space left on device\nespalier: {GO_ON}\n"


@pytest.mark.parametrize(
    ("ended", "clear", "said"),
    [
        (Ended(code=0, printed="{}", complaint="espalier: tokenize: 0.1 s\n"), True, "tokenize: 0.1 s"),
        (Ended(code=1, printed="", complaint=TOLD), True, f"stage prune: No space left on device / {GO_ON}"),
        (Ended(code=2, printed="", complaint="espalier: metrics: x is damaged\n"), True, "metrics: x is damaged"),
        (Ended(code=1, printed="", complaint="Traceback\n  File\nKeyError: 1\n"), False, "KeyError: 1"),
        (Ended(code=-9, printed="", complaint=""), False, ""),
    ],
)
def test_an_end_is_clear_where_the_command_itself_says_why(ended, clear, said):
    assert (ended.is_clear, ended.said) == (clear, said)


def test_kills_are_divided_and_every_fault_has_its_turn_first():
    assert sum(cell.fault in KILLS for cell in cells([], 50)) == 50
    assert [cell.fault for cell in cells(["damage", "kill_flow"], 50)[:2]] == ["damage", "kill_flow"]
    assert cells(["kill_server"], 10) == [Cell(fault="kill_server", number=0), Cell(fault="kill_server", number=1)]


def test_the_table_counts_what_the_lines_say():
    def line(code: int, right: bool, clear: bool, same: bool, fault: str = "fill_disk") -> dict:
        ended = {"code": code, "right": right, "clear": clear, "said": "disk | full" if code else ""}
        return {"cell": {"fault": fault, "number": 0}, **ended, "same": same}

    lines = [line(0, True, True, True), line(1, False, True, True), line(1, False, False, False)]
    lines.append(line(-9, False, False, True, fault="kill_flow"))
    full, killed = (row.split(" | ")[1:] for row in reversed(markdown(lines).splitlines()[-2:]))
    assert full == ["3", "1", "1", "1", "2 of 3", "disk / full |"]
    assert killed == ["1", "0", "0", "0", "1 of 1", " |"]

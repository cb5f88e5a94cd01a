"""A bar for a terminal; for a file or a pipe a plain line of what has finished, and nothing else."""

import io

import pytest

from tasks.progress import progress, tell_finished


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_terminal"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_bar_is_for_a_terminal_and_a_line_for_a_file(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, is_terminal: bool
):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    with progress("prune", total=3) as reach:
        for done in (1, 2, 3):
            reach(done)
    assert ("prune" in stream.getvalue()) is is_terminal
    shown = stream.getvalue()
    tell_finished("prune: 1.0 s")
    assert stream.getvalue() == (shown if is_terminal else "espalier: prune: 1.0 s\n")

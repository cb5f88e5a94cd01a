"""What has been measured outlives the process that measured it."""

import pytest

from tasks.record import kept
from tasks.record.kept import Kept


def test_values_are_kept_as_they_come_so_that_a_kill_costs_few(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_EVERY", 0.0)
    Kept(tmp_path / "looks" / "a.json")["search 0,1"] = (1.5, 2.0)  # and nobody says `keep`
    assert dict(Kept(tmp_path / "looks" / "a.json")) == {"search 0,1": [1.5, 2.0]}


def test_until_then_nothing_is_written(tmp_path):
    known = Kept(tmp_path / "a.json")
    known["search 0,1"] = (1.5,)
    assert not (tmp_path / "a.json").exists()
    known.keep()
    assert dict(Kept(tmp_path / "a.json")) == {"search 0,1": [1.5]}


def test_two_processes_at_once_keep_the_values_of_both(tmp_path):
    one, other = Kept(tmp_path / "a.json"), Kept(tmp_path / "a.json")
    one["search 0,1"], other["search 1,0"] = (1.0,), (2.0,)
    one.keep()
    other.keep()
    assert dict(Kept(tmp_path / "a.json")) == {"search 0,1": [1.0], "search 1,0": [2.0]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:-3],
        lambda stored: stored.replace(b"1.5", b"9.5"),
        lambda stored: stored.replace(b"sha256", b"sha"),
        lambda stored: bytes(range(256)),
    ],
    ids=["empty", "cut off", "another number", "without its digest", "no text"],
)
def test_what_is_damaged_is_measured_again(tmp_path, damage):
    known = Kept(tmp_path / "a.json")
    known["search 0,1"] = (1.5,)
    known.keep()
    (tmp_path / "a.json").write_bytes(damage((tmp_path / "a.json").read_bytes()))
    known = Kept(tmp_path / "a.json")
    assert not known
    known["search 0,1"] = (1.5,)
    known.keep()
    assert dict(Kept(tmp_path / "a.json")) == {"search 0,1": [1.5]}

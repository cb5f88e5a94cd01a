"""What a search has measured outlives the process that measured it."""

from pathlib import Path

import pytest

from tasks.train_controller.allocators import task
from tasks.train_controller.allocators.task import KeptLosses


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))


def test_losses_are_kept_as_they_come_so_that_a_kill_costs_few(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "KEPT_EVERY", 0.0)
    KeptLosses(tmp_path / "looks" / "a.json")["search 0,1"] = (1.5, 2.0)  # and nobody says `keep`
    assert dict(KeptLosses(tmp_path / "looks" / "a.json")) == {"search 0,1": [1.5, 2.0]}


def test_until_then_nothing_is_written(tmp_path):
    known = KeptLosses(tmp_path / "a.json")
    known["search 0,1"] = (1.5,)
    assert not (tmp_path / "a.json").exists()
    known.keep()
    assert dict(KeptLosses(tmp_path / "a.json")) == {"search 0,1": [1.5]}


def test_two_searches_at_once_keep_the_losses_of_both(tmp_path):
    one, other = KeptLosses(tmp_path / "a.json"), KeptLosses(tmp_path / "a.json")
    one["search 0,1"], other["search 1,0"] = (1.0,), (2.0,)
    one.keep()
    other.keep()
    assert dict(KeptLosses(tmp_path / "a.json")) == {"search 0,1": [1.0], "search 1,0": [2.0]}

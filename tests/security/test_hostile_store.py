"""An artifacts folder that others could write to: what is not ours is refused by name, and what is damaged is told."""

import os
import shutil
from pathlib import Path

import duckdb
import pytest

from tasks.handles import Checkpoint
from tasks.record import home, metrics
from tasks.record.unfinished import workplace
from tests.record.plausible import CONTEXT, record_run


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


def put(text: str = "one") -> home.Stored:
    with home.store("tokens") as draft:
        (draft.path / "ids").write_text(text)
    return draft.stored


def test_a_link_is_never_part_of_what_was_stored(tmp_path):
    stored = put()
    folder = home.locate(stored.folder)
    (folder / "more").symlink_to("/etc")  # a folder: the manifest would not show it
    with pytest.raises(home.Altered, match="/more is a link"):
        home.verify(stored)
    (folder / "more").unlink()
    shutil.move(folder / "ids", tmp_path / "ids")
    (folder / "ids").symlink_to(tmp_path / "ids")  # the same bytes, until somebody changes them
    with pytest.raises(home.Altered, match="/ids is a link"):
        home.verify(stored)


def test_a_handle_leads_to_no_place_outside(artifacts):
    stored = put()
    shutil.copytree(home.locate(stored.folder), artifacts.parent / "outside")
    for folder in ("../outside", f"store/tokens/../../../outside/{stored.hash}"):
        with pytest.raises(home.Damaged, match="leads out of"):
            home.verify(Checkpoint(hash=stored.hash, folder=folder))


def test_what_others_leave_among_drafts_stops_nobody(artifacts):
    outside = artifacts.parent / "outside"
    outside.mkdir(parents=True)
    for place in (artifacts / "store" / ".writing", artifacts / "store" / ".unfinished"):
        place.mkdir(parents=True)
        (place / ".DS_Store").touch()
        (place / "link").symlink_to(outside)
        os.utime(place / ".DS_Store", (0, 0))
        os.utime(outside, (0, 0))
    home.verify(put())
    with workplace("some-work"):
        pass
    assert outside.is_dir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"no database" * 1000,
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:9000] + b"\xff" + whole[9001:],
    ],
    ids=["empty", "garbage", "half", "one byte"],
)
def test_a_damaged_database_costs_no_row(artifacts, damage):
    record_run(CONTEXT)
    metrics.keep_views()
    file = artifacts / "espalier.duckdb"
    file.write_bytes(damage(file.read_bytes()))
    metrics.keep_views()
    assert [row["run"] for row in metrics.query("select run from runs")] == [CONTEXT.run]
    with duckdb.connect(file, read_only=True) as database:  # it has been written anew
        assert database.execute("select run from runs").fetchall() == [(CONTEXT.run,)]


@pytest.mark.parametrize("left", [0, 100, -9])
def test_a_damaged_table_is_named_with_what_to_do(artifacts, left):
    record_run(CONTEXT)
    (file,) = (artifacts / "metrics" / "runs").iterdir()
    file.write_bytes(file.read_bytes()[:left])
    for ask in (metrics.query, metrics.ask):
        with pytest.raises(ValueError, match=f"{file} is damaged; remove it and give the command") as error:
            ask("select * from runs")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "statement",
    [
        "copy (select 1) to '{outside}'",
        "select * from read_text('/etc/hostname')",
        "select * from glob('/etc/*')",
        "attach '{outside}'",
        "export database '{outside}'",
        "set enable_external_access = true",
        "load '{outside}'",
        "install httpfs",
        "select * from duckdb_secrets()",
    ],
)
def test_a_statement_reaches_no_disk(artifacts, statement):
    record_run(CONTEXT)
    outside = artifacts.parent / "outside"
    with pytest.raises(ValueError, match=r"statement: .*(Permission|locked)"):
        metrics.ask(statement.format(outside=outside))
    assert not outside.exists()


def test_a_statement_changes_no_row():
    record_run(CONTEXT)
    metrics.ask("drop table runs")
    assert metrics.ask("select count(*) as n from runs") == [{"n": 1}]

import os
import threading
import time
from contextlib import suppress

import pytest

from tasks.record.unfinished import ABANDONED_S, workplace


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    return tmp_path / "store" / ".unfinished"


def stop(key, left):
    """Work that fails half-way; its folder."""
    with suppress(KeyError), workplace(key) as folder:
        (folder / left).write_text(left)
        raise KeyError
    return folder


def test_what_was_stopped_finds_its_folder_again_and_what_is_done_leaves_none(parent):
    stop("work", "half")
    with workplace("other") as folder:
        assert not list(folder.iterdir())
    with workplace("work") as folder:
        assert (folder / "half").read_text() == "half"
    assert not list(parent.iterdir())


def test_two_take_turns_and_the_second_begins_anew(parent):
    seen, holds, ends = [], threading.Event(), threading.Event()

    def first():
        with workplace("work") as folder:
            (folder / "mine").touch()
            holds.set()
            ends.wait(60)
            seen.append("first")

    def second():
        with workplace("work") as folder:
            seen.append(sorted(path.name for path in folder.iterdir()))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert holds.wait(60)
    threads[1].start()
    time.sleep(0.1)
    assert not seen
    ends.set()
    for thread in threads:
        thread.join(60)
    assert seen == ["first", []]
    assert not list(parent.iterdir())


def test_what_nobody_comes_back_to_is_removed_unless_it_is_in_use(parent):
    def date_back(folder):
        then = time.time() - ABANDONED_S - 60
        os.utime(folder, (then, then))

    date_back(stop("old", "half"))
    stop("recent", "half")
    with workplace("used") as used:
        date_back(used)
        with workplace("new"):
            assert sorted(path.name for path in parent.iterdir()) == ["new", "recent", "used"]

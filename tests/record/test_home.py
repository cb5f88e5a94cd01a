"""The content-addressed store: what it holds is whole, whatever happens to its writers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tasks.handles import Checkpoint
from tasks.record import home


def put(kind: str = "tokens", **files: str) -> home.Stored:
    with home.store(kind) as draft:
        for name, text in files.items():
            (draft.path / name).write_text(text)
    return draft.stored


def drafts(artifacts: Path) -> list[Path]:
    return list((artifacts / "store" / ".writing").iterdir())


def test_content_is_stored_once_under_its_hash(artifacts):
    first, second = put(ids="1 2 3"), put(ids="1 2 3")
    assert first == second
    assert first.folder == f"store/tokens/{first.hash}"
    assert home.locate(first.folder).joinpath("ids").read_text() == "1 2 3"
    assert home.hash_folder(home.locate(first.folder)) == first.hash
    assert first.size_bytes == 5
    assert put(ids="1 2 4").hash != first.hash
    assert put(idx="1 2 3").hash != first.hash
    assert drafts(artifacts) == []
    home.verify(first)


def test_files_may_be_read_alike_whoever_wrote_them(tmp_path):
    source = tmp_path / "config.json"
    source.write_text("{}")
    source.chmod(0o400)
    with home.store("checkpoints") as draft:
        save_file({"ids": torch.arange(3)}, draft.path / "tokens.safetensors")  # for the owner alone
        (draft.path / "below").mkdir()
        shutil.copy(source, draft.path / "below")
        (draft.path / "plain").touch()
        expected = (draft.path / "plain").stat().st_mode
    stored = [path for path in home.locate(draft.stored.folder).rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode for path in stored} == dict.fromkeys(
        (home.MANIFEST, "tokens.safetensors", "config.json", "plain"), expected
    )


def test_the_manifest_is_one_that_sha256sum_reads():
    stored = put(a="one", b="two")
    if shutil.which("sha256sum") is None:
        pytest.skip("coreutils are not installed")
    subprocess.run(["sha256sum", "--check", "--strict", home.MANIFEST], cwd=home.locate(stored.folder), check=True)
    line = subprocess.check_output(["sha256sum", home.MANIFEST], cwd=home.locate(stored.folder), text=True)
    assert line.split()[0] == stored.hash


def test_a_failed_body_stores_nothing(artifacts):
    with pytest.raises(ValueError, match="one"), home.store("tokens") as draft:
        (draft.path / "ids").write_text(str(int("one")))
    assert not (artifacts / "store" / "tokens").exists()
    assert drafts(artifacts) == []
    with pytest.raises(RuntimeError, match="not stored yet"):
        draft.stored  # noqa: B018


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: shutil.rmtree(folder), home.Missing, "is missing from"),
        (lambda folder: (folder / "b").unlink(), home.Missing, "/b is missing"),
        (lambda folder: (folder / "b").write_text("twx"), home.Altered, "/b was altered"),
        (lambda folder: (folder / "c").write_text("new"), home.Altered, "/c does not belong"),
        (lambda folder: [path.write_text("") for path in folder.iterdir()], home.Altered, "no longer has the content"),
    ],
)
def test_damage_is_named_and_replaced(damage, error, message):
    stored = put(a="one", b="two")
    damage(home.locate(stored.folder))
    with pytest.raises(error, match=message):
        home.verify(stored)
    assert put(a="one", b="two") == stored
    home.verify(stored)


def test_handles_are_found_inside_results():
    stored, brought = put(a="one"), Checkpoint(hash="0" * 64, folder="/models/llama")
    assert list(home.handles_in([{"of": (stored, brought)}, 7, None, "text"])) == [stored]


def test_empty_drafts_and_links_are_refused():
    with pytest.raises(ValueError, match="nothing was written"):
        put()
    with pytest.raises(ValueError, match="only plain files"), home.store("tokens") as draft:
        (draft.path / "link").symlink_to("/etc/hostname")


def test_the_folder_is_asked_anew_at_every_call(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "elsewhere"))
    assert home.root() == tmp_path / "elsewhere"
    monkeypatch.delenv("ESPALIER_ARTIFACTS")
    monkeypatch.chdir(tmp_path)
    assert home.root() == tmp_path / "artifacts"
    assert home.locate("/models/llama") == Path("/models/llama")


def test_an_unwritable_or_full_folder_is_refused(tmp_path, monkeypatch):
    home.check_writable()
    with pytest.raises(ValueError, match=r"GB free .* GB needed"):
        home.check_writable(min_free_bytes=10**18)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"cannot write to .*; set ESPALIER_ARTIFACTS") as caught:
        home.check_writable()
    assert "\n" not in str(caught.value)


def test_threads_that_store_the_same_content_agree(artifacts):
    with ThreadPoolExecutor(8) as pool:
        stored = {future.result() for future in [pool.submit(put, ids="7 " * 1000) for _ in range(32)]}
    assert len(stored) == 1
    home.verify(stored.pop())
    assert drafts(artifacts) == []


WRITER = """
from tasks.handles import Checkpoint
from tasks.record import home
part = 0
while True:
    with home.store("weights") as draft:
        for name in "abcd":
            (draft.path / name).write_bytes(bytes([part % 256]) * 200_000)
    print(draft.stored.folder, flush=True)
    part += 1
"""


def test_killed_writers_leave_whole_artifacts_or_none(artifacts):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for moment in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, env=environment)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.0007 * moment)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        for folder in (artifacts / "store" / "weights").iterdir():
            assert home.hash_folder(folder) == folder.name
            assert (folder / home.MANIFEST).is_file()
    put(ids="after them")
    assert drafts(artifacts) == []  # what the dead had begun is swept away


def test_the_draft_of_a_living_writer_is_not_swept(artifacts):
    with home.store("tokens") as draft:
        (draft.path / "ids").write_text("slow")
        put(ids="quick")
        assert len(drafts(artifacts)) == 1
    home.verify(draft.stored)


def test_a_file_is_written_whole_over_the_old_one(artifacts):
    target = artifacts / "reports" / "r1" / "index.html"
    home.write_file(target, b"old")
    home.write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]

"""C++ is compiled once, for its user alone; what others could have written is never loaded."""

import os
import pwd
import stat
from pathlib import Path

import pytest

from tasks.prune.activation import shared_library as module
from tasks.prune.activation.shared_library import NotCompiled, shared_library

COMPILER = """#!/bin/sh
case "$*" in *--version*) echo "a compiler 1.0"; exit;; esac
echo compiled >> {log}
for last; do :; done
echo library > "$last"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "espalier"


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "sum.cpp"
    file.write_text("int one() { return 1; }")
    return file


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """A compiler that takes no time, and how often it was asked."""
    script, log = tmp_path / "compiler", tmp_path / "log"
    script.write_text(COMPILER.format(log=log))
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    return lambda: log.read_text().count("compiled") if log.exists() else 0


def test_it_is_compiled_once_and_anew_for_another_source_or_cpu(cache, source, compiled, monkeypatch):
    first = shared_library(source)
    assert first.read_text() == "library\n"
    assert (shared_library(source), compiled()) == (first, 1)
    source.write_text("int one() { return 2; }")
    second = shared_library(source)
    assert (second != first, compiled()) == (True, 2)
    monkeypatch.setattr(module, "_cpu", lambda: "another")
    assert (shared_library(source) not in (first, second), compiled()) == (True, 3)
    assert {each.suffix for each in cache.iterdir()} == {".so"}  # nothing is left beside them


def test_nobody_else_may_write_there(cache, source, compiled):
    umask = os.umask(0)
    try:
        file = shared_library(source)
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (cache, file)] == [0o700, 0o700]


@pytest.mark.parametrize("part", ["folder", "file"])
def test_what_others_may_write_to_is_not_loaded(cache, source, compiled, part):
    file = shared_library(source)
    (cache if part == "folder" else file).chmod(0o777)
    with pytest.raises(NotCompiled, match=r"may be written to by others; remove it$"):
        shared_library(source)


def test_another_users_folder_is_not_used(cache, source, compiled, monkeypatch):
    monkeypatch.setattr(module.os, "getuid", lambda: cache.parent.parent.stat().st_uid + 1)
    with pytest.raises(NotCompiled, match="another user's"):
        shared_library(source)
    assert compiled() == 0


def test_a_link_is_not_followed(cache, source, compiled, tmp_path):
    cache.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotCompiled, match="is a link"):
        shared_library(source)


@pytest.mark.parametrize(
    ("command", "says"),
    [("false", "^false ended with 1: it says nothing$"), ("no-such-compiler", "no-such-compiler")],
)
def test_a_compiler_that_fails_is_named(cache, source, monkeypatch, command, says):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(NotCompiled, match=says):
        shared_library(source)


def test_without_a_compiler_it_says_what_to_do(cache, source, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCompiled, match=r"no C\+\+ compiler was found .*; install one, or name it in CXX$"):
        shared_library(source)


@pytest.mark.parametrize("named", ["", "relative"])
def test_without_a_path_for_caches_it_is_the_home_that_has_one(source, compiled, tmp_path, monkeypatch, named):
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shared_library(source).parent == tmp_path / ".cache" / "espalier"


def test_a_user_without_a_home_is_told_what_to_name(source, compiled, monkeypatch):
    def no_such_user(number):
        raise KeyError(number)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    with pytest.raises(NotCompiled, match=r"^this user has no home folder; name one for caches in XDG_CACHE_HOME$"):
        shared_library(source)


def test_a_home_that_cannot_be_written_to_is_named(source, compiled, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NotCompiled, match=str(Path("file") / "espalier")):
        shared_library(source)

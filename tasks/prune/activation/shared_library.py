"""C++ compiled for the CPU at hand, once: a shared library in a folder that its user alone may write to.

What is loaded runs as this user. So a library is named by all that it was made from (the source, the command, the
compiler, the CPU), is written aside and renamed, and is never taken from a folder or a file that others could change.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILERS = ("g++", "c++", "clang++")  # the first that is found, unless $CXX names one
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")
CPU_FACTS = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # of /proc/cpuinfo, here or on an ARM
SECONDS = 120  # that a compiler may take


class NotCompiled(Exception):  # noqa: N818
    """There is no library, and in a line why."""


def shared_library(source: Path) -> Path:
    """The file of `source` compiled; at once where it was compiled before. Raises NotCompiled."""
    try:
        compiler = _compiler()
        made_from = [source.read_text(encoding="utf-8"), *compiler, *FLAGS, _output([*compiler, "--version"]), _cpu()]
        digest = hashlib.sha256("\n".join(made_from).encode()).hexdigest()
        file = _private(_cache()) / f"{source.stem}-{digest[:32]}.so"
        if not file.exists():
            _compile([*compiler, *FLAGS, str(source)], file)
        return _private(file)
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        said = [line for line in lines if "error" in line] or lines or ["it says nothing"]
        raise NotCompiled(f"{error.cmd[0]} ended with {error.returncode}: {said[0]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotCompiled(str(error)) from error


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    found = named or [each for each in COMPILERS if shutil.which(each)][:1]
    if not found:
        raise NotCompiled(f"no C++ compiler was found ({', '.join(COMPILERS)}); install one, or name it in CXX")
    return found


def _compile(command: list[str], file: Path) -> None:
    """Others see the whole file or none: it is renamed when it is complete."""
    with tempfile.TemporaryDirectory(dir=file.parent) as aside:
        made = Path(aside) / file.name
        _output([*command, "-o", str(made)])
        made.chmod(0o700)
        made.replace(file)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=True)
    return done.stdout


def _cache() -> Path:
    """Of this user, as the XDG base directory specification says: a path that is not absolute counts as none."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise NotCompiled("this user has no home folder; name one for caches in XDG_CACHE_HOME") from error
    folder = base / "espalier"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _private(path: Path) -> Path:
    """`path`, which belongs to this user, and which no other may write to. Raises NotCompiled for another."""
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise NotCompiled(f"{path} is a link, is another user's or may be written to by others; remove it")
    return path


def _cpu() -> str:
    """What `-march=native` looks at, so that a home folder on several machines has a library for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except FileNotFoundError:  # not Linux
        return platform.platform() + platform.processor()
    return "\n".join([platform.machine(), *(line for line in lines if line.startswith(CPU_FACTS))])

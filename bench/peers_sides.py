"""The sides as the benchmark sees them: a process each, that waits for jobs while another side has its turn."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.peers_environments import last_line, python_of
from bench.peers_worker import ANSWERS
from bench.sides import ONE_PASS, SAME_ORDER

ROOT = Path(__file__).parents[1]
LLM_COMPRESSOR, MODELOPT = "llm-compressor", "modelopt"
PEERS = (LLM_COMPRESSOR, MODELOPT)
OURS = (ONE_PASS, SAME_ORDER)
SIDES = {
    LLM_COMPRESSOR: ["bench.peers_llmcompressor"],
    MODELOPT: ["bench.peers_modelopt"],
    ONE_PASS: ["bench.peers_espalier", "group"],
    SAME_ORDER: ["bench.peers_espalier", "block"],
}
# Freed tensors go back to the kernel at once, so that what is resident is in use. In huge pages: with small ones this
# costs half as much time again; so it costs every side about a tenth.
MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576"


class Failed(Exception):  # noqa: N818 - recorded beside the sides that did not
    """The process of a side has ended; the last line of what it said."""


class Side:
    """A side's process, to be used under `with`; started by the first job, and anew after one that ended it."""

    def __init__(self, name: str, threads: int, logs: Path) -> None:
        self.name = name
        self.versions: dict[str, str] = {}
        self._threads = threads
        self._log = logs / f"{name}.log"
        self._process: subprocess.Popen[str] | None = None

    def do(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one job. Failed with the reason, where the job ends the process; NotInstalled."""
        if self._process is None:
            self._process = self._start()
            self.versions = self._answer()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill() if error is not None else self._process.communicate()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        python = python_of(self.name) if self.name in PEERS else Path(sys.executable)
        answers, theirs = os.pipe()
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self._threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "GLIBC_TUNABLES": MEMORY,
            ANSWERS: str(theirs),
        }
        with self._log.open("w") as log:
            process = subprocess.Popen(
                [str(python), "-m", *SIDES[self.name]],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
                text=True,
                cwd=ROOT,
                env=environment,
            )
        os.close(theirs)
        self._answers = os.fdopen(answers)
        return process

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        line = self._answers.readline()
        if not line:
            self._process.communicate()
            self._process = None
            raise Failed(last_line(self._log.read_text(errors="replace")))
        return json.loads(line)

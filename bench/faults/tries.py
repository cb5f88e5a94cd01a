"""One try of a fault, and what is asked of it: the run ends right or says how to go on, and then comes to the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults.subject import Ended, end, facts, start


@dataclass(frozen=True, kw_only=True)
class Try:
    """The `number`-th try of a fault. `expected`: what an undisturbed run has found, and how long it `lasted_s`."""

    fault: str
    number: int
    artifacts: Path
    expected: dict[str, Any]
    lasted_s: float


def judged(of: Try, first: Ended) -> dict[str, Any]:
    """What the disturbed run came to, and what the same command comes to now that the fault is over."""
    again = end(start(of.artifacts))
    right = first.code == 0 and facts(of.artifacts, first) == of.expected
    return {
        "code": first.code,
        "right": right,
        "clear": first.is_clear,
        "said": "" if first.code <= 0 else _said(of, first),
        "again_code": again.code,
        "again_said": "" if again.code == 0 else _said(of, again),
        "same": again.code == 0 and facts(of.artifacts, again) == of.expected,
    }


def _said(of: Try, ended: Ended) -> str:
    """Whoever tries it anew has other artifacts."""
    return ended.said.replace(str(of.artifacts), "ARTIFACTS")

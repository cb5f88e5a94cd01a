"""The names with which a word of a command may begin, and the numbers it may be, so that a mistake is told at once.

The parameters of the flows know them too, but bring torch and all methods with them; tests hold the two together.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable

PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
GROUPS, SHARE = re.compile(r"(\d+):(\d+)"), re.compile(r"(\d+(?:\.\d+)?)%(?:@matrix)?")
PRUNERS = ("magnitude", "wanda", "ria", "clearcut", "sparsegpt")
BESIDE_PRUNERS = ("none", "FILE.py:Class")
UPDATES = ("none", "sweep", "refit")
IMPORTANCES = (
    "weight_norm",
    "activation",
    "wanda_sp",
    "flap",
    "taylor",
    "fisher",
    "influence",
    "leave_one_out",
)
USUAL_IMPORTANCE = "wanda_sp"  # of units; repaired the lowest, or within 3 % of it, in bench/results/slices.md
SELECTIONS = ("topk", "nm", "threshold", "clact", "amber", "weight_variance")
MITIGATIONS = ("var", "dpts", "spts", "lpts", "ls", "scaling", "rsparse")
PATTERNS = "n:m with 1 <= n <= m (2:4), a percentage below 100 of each row (50%) or of the whole matrix (50%@matrix)"
INPUT_PATTERNS = "n:m with 1 <= n < m (8:16), or a percentage below 100 of a token's inputs (50%)"
COSTS = ("parameters", "flops", "bytes", "kv")
FORMS = ("uniform", "padded", "per_layer")
SAMPLINGS = ("random", "first")
SWEEPS = (
    "demo",
    "patterns",
    "methods",
    "ladder",
    "importances",
    "allocators",
    "activation",
    "activation-tables",
    "llama-1b-sparsegpt-2of4",
)


def one_of(*names: str) -> Callable[[str], str]:
    """What argparse reads a word by: the word as it is, if what stands before its first comma is one of the names."""

    def read(word: str) -> str:
        if (name := word.partition(",")[0]) not in names:
            raise ArgumentTypeError(unknown(name, *names))
        return word

    return read


def pruner(word: str) -> str:
    """As `one_of`, or a class in a file."""
    return word if ":" in word.partition(",")[0] else one_of(*PRUNERS, *BESIDE_PRUNERS)(word)


def pattern(forms: str) -> Callable[[str], str]:
    """What argparse reads a word by: the word as it is, if it is a pattern. `forms`: what to say is valid."""

    def read(word: str) -> str:
        groups, share = GROUPS.fullmatch(word), SHARE.fullmatch(word)
        valid = 1 <= int(groups[1]) <= int(groups[2]) if groups else share is not None and float(share[1]) < 100
        if not valid:
            raise ArgumentTypeError(f"{word!r} is not valid; use {forms}")
        return word

    return read


def mitigations(word: str) -> str:
    """Several methods joined by +, each as `one_of`; or none."""
    for part in word.split("+") if word != "none" else ():
        one_of(*MITIGATIONS, "none")(part)
    return word


def number(*, above: float, below: float | None = None, most: float | None = None) -> Callable[[str], str]:
    """What argparse reads a word by: the word as it is, if it is a number within these bounds."""

    def read(word: str) -> str:
        try:
            value = float(word)
        except ValueError:
            what = "Input should be a valid number, unable to parse string as a number"
            raise ArgumentTypeError(f"{what} (given: {word!r}{share_of(word)})") from None
        if value <= above:
            raise ArgumentTypeError(f"Input should be greater than {above:g} (given: {word!r})")
        if below is not None and not value < below:
            raise ArgumentTypeError(f"Input should be less than {below:g} (given: {word!r})")
        if most is not None and not value <= most:
            raise ArgumentTypeError(f"Input should be less than or equal to {most:g} (given: {word!r})")
        return word

    return read


def whole(least: int) -> Callable[[str], str]:
    """As `number`, of whole ones, from `least`."""

    def read(word: str) -> str:
        try:
            value = int(word.removesuffix(".0"))
        except ValueError:
            what = "Input should be a valid integer, unable to parse string as an integer"
            raise ArgumentTypeError(f"{what} (given: {word!r})") from None
        if value < least:
            raise ArgumentTypeError(f"Input should be greater than or equal to {least} (given: {word!r})")
        return word

    return read


def share_of(word: str) -> str:
    """What to say in place of a share in percent, `; say 0.3`; nothing for other words."""
    percent = PERCENT.fullmatch(word)
    return "" if percent is None else f"; say {float(percent[1]) / 100:g}"


def unknown(name: str, *names: str) -> str:
    return f"{name!r} is unknown; choose one of {', '.join(names)}"

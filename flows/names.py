"""The names with which a word of a command may begin, so that a mistaken one is told at once.

The registries know them too, but bring torch and all methods with them; a test holds the two together.
"""

from argparse import ArgumentTypeError
from collections.abc import Callable

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
SELECTIONS = ("topk", "nm", "threshold", "clact", "amber", "weight_variance")
SWEEPS = ("demo", "patterns", "methods", "ladder", "activation", "llama-1b-sparsegpt-2of4")


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


def unknown(name: str, *names: str) -> str:
    return f"{name!r} is unknown; choose one of {', '.join(names)}"

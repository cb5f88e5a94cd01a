"""Where a model runs, by the word of a command line."""

import re

import torch

VALID = re.compile(r"auto|cpu|cuda(:\d+)?")


def device_named(asked: str) -> str:
    """The device that a word names; "auto" is a GPU where there is one.

    Raises ValueError for a word that names none, and for a GPU that is not here.
    """
    if not VALID.fullmatch(asked):
        raise ValueError(f"device: {asked!r} given, valid is auto, cpu, cuda or cuda:1")
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: {asked} is not available here; use cpu or auto")
    return asked

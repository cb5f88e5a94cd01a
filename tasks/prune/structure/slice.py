"""What a cut has replaced in a model, and how it is undone: every original is kept as it was, and put back whole."""

from dataclasses import dataclass
from typing import Any, Self


class Slice:
    """Attributes of modules that were replaced, with the originals: `restore` puts these back, `apply` cuts again.

    Neither copies or computes anything, and what was not cut is shared, so that a model can be switched to and fro.
    Within `with` a slice is in force, after it the model is what it was. Slices of one model are undone in the reverse
    order of their making; RuntimeError, before anything has changed, for an attribute that something else replaced.
    """

    def __init__(self) -> None:
        self._replaced: list[_Replaced] = []

    def replace(self, owner: Any, name: str, new: object) -> None:
        """Set `owner.name`, remembering what it was."""
        self._replaced.append(_Replaced(owner, name, getattr(owner, name), new))
        setattr(owner, name, new)

    def restore(self) -> None:
        """Put every original back."""
        self._check([each.new for each in self._replaced])
        for each in reversed(self._replaced):
            setattr(each.owner, each.name, each.old)

    def apply(self) -> None:
        """Make the cut again after `restore`."""
        self._check([each.old for each in self._replaced])
        for each in self._replaced:
            setattr(each.owner, each.name, each.new)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def _check(self, expected: list[object]) -> None:
        for each, value in zip(self._replaced, expected, strict=True):
            if getattr(each.owner, each.name) is not value:
                where = f"{type(each.owner).__name__}.{each.name}"
                raise RuntimeError(f"slice: {where} is not what this slice left; undo first what was cut later")


@dataclass(frozen=True)
class _Replaced:
    owner: Any
    name: str
    old: object
    new: object

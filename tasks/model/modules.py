"""Which linears of a block are meant: by the last part of their names, or by patterns for their whole names in it."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

ALL = ("*",)


def is_meant(name: str, modules: Sequence[str]) -> bool:
    """Of a linear by its name in its block: `mlp.down_proj` is meant by `down_proj`, `mlp.*` and `*`."""
    return any(fnmatchcase(name, pattern) or name.rpartition(".")[2] == pattern for pattern in modules)


def those_of(linears: Mapping[str, nn.Linear], modules: Sequence[str]) -> dict[str, nn.Linear]:
    """Those that are meant, in their order."""
    return {name: linear for name, linear in linears.items() if is_meant(name, modules)}


def check_modules(modules: Sequence[str], names: Iterable[str] | None = None) -> None:
    """ValueError where there are none, or one that means none of the linears of these `names`, where they are given."""
    if not modules:
        raise ValueError("modules: none given, valid are names of linears such as down_proj, or patterns for them")
    if names is None:
        return
    known = list(dict.fromkeys(names))
    for pattern in modules:
        if not any(is_meant(name, (pattern,)) for name in known):
            raise ValueError(f"modules: {pattern!r} given, which no block has; choose of {', '.join(known)}")

"""The dicts of tasks.prune.methods, which is imported when one is asked for: torch and all methods come with it.

So that who reads stored rows, whose types lie in this room too, need not wait for these.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.prune.methods import (
        ALLOCATIONS,
        DECOMPOSERS,
        KV_BUDGETS,
        MITIGATIONS,
        PATTERNS,
        PRUNERS,
        SELECTIONS,
        UPDATES,
    )

__all__ = ["ALLOCATIONS", "DECOMPOSERS", "KV_BUDGETS", "MITIGATIONS", "PATTERNS", "PRUNERS", "SELECTIONS", "UPDATES"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("tasks.prune.methods"), name)

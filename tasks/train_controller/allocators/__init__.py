"""The dict of tasks.train_controller.allocators.searchers, which is imported when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.train_controller.allocators.searchers import SEARCHERS

__all__ = ["SEARCHERS"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("tasks.train_controller.allocators.searchers"), name)

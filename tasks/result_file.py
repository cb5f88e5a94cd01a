"""A stage's stored result is read only if it is ours: JSON of plain values and of this project's dataclasses.

Prefect lets the file itself say how it is to be read, by pickle if it says so, and makes whatever its JSON names, by a
call if that is a function. So whoever can write into the folder of results could run code; here is what is read before.
"""

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

OURS = "tasks."
MADE, RAISED = "__class__", "__exc_type__"  # what Prefect's decoder acts upon


def drop_foreign_result(path: Path, serializer: Mapping[str, Any]) -> None:
    """Remove a result that a killed process left half-written, or that no stage has written: it is computed again.

    `serializer`: how stages write, in Prefect's words.
    """
    if path.is_file() and not _is_ours(path, serializer):
        path.unlink(missing_ok=True)


def _is_ours(path: Path, serializer: Mapping[str, Any]) -> bool:
    try:
        record = json.loads(path.read_bytes())
        return record["metadata"]["serializer"] == serializer and _is_plain(json.loads(record["result"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_plain(value: Any) -> bool:
    """Whether all that the decoder would make of it, at any depth, is a dataclass of this project."""
    if isinstance(value, dict):
        named = value.get(MADE)
        return RAISED not in value and (named is None or _is_dataclass(named)) and _is_plain(list(value.values()))
    return not isinstance(value, list) or all(_is_plain(each) for each in value)


def _is_dataclass(name: Any) -> bool:
    module, _, attribute = str(name).rpartition(".")
    if not module.startswith(OURS):
        return False
    try:
        made = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(made, type) and is_dataclass(made)

"""A pruner of one's own: a class in a Python file, which needs no entry anywhere."""

import hashlib
import importlib.util
import sys
from dataclasses import is_dataclass
from inspect import isabstract
from pathlib import Path

from tasks.prune.weight.pruner import Pruner


def load_pruner(file: str, name: str) -> type[Pruner]:
    """The class `name` of a file, which is run for it.

    The module is named by the file's content, so an edited file is another method, in a cache key too. Raises
    ValueError for a file that cannot be read or run, and a class that is missing or no pruner.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"pruner: {file} is no file; a method of one's own is FILE.py:Class")
    module_name = f"own_{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"pruner: {file} is no Python file; a method of one's own is FILE.py:Class")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # a dataclass looks its module up while it is made
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ValueError(f"pruner: {file} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(sys.modules[module_name], name, None)
    if not (isinstance(found, type) and issubclass(found, Pruner) and is_dataclass(found)):
        raise ValueError(f"pruner: {name} in {file} is no dataclass that derives from ScorePruner or Pruner")
    if "__dataclass_fields__" not in vars(found) and (undeclared := _annotated(found)):
        raise ValueError(
            f"pruner: {name} in {file} has {undeclared[0]}, which is no option of it without "
            "@dataclass(frozen=True, kw_only=True) above the class"
        )
    if isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise ValueError(f"pruner: {name} in {file} lacks {lacking}; a ScorePruner needs score alone")
    return found


def _annotated(found: type) -> list[str]:
    """The names that the class itself gives a type, constants of the class apart."""
    return [name for name, hint in vars(found).get("__annotations__", {}).items() if "ClassVar" not in str(hint)]

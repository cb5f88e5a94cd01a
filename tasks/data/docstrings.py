"""Docstrings of a Python file, read with `ast`; nothing is imported or executed."""

import ast
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path

SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
INNER = ("body", "orelse", "finalbody", "handlers")  # the fields through which statements hold statements


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of one file in the order of the source, each cleaned by `inspect.cleandoc`.

    A file that this Python cannot parse (a template, a test of a broken file) has none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # an invalid escape in someone else's string
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for text in _walk(tree):
        yield inspect.cleandoc(text)


def strings_of_dict(path: Path) -> Iterator[str]:
    """The values of every dict of strings assigned at the top of a file: `pydoc_data/topics.py` is one such dict."""
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for value in statement.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield inspect.cleandoc(value.value)


def _walk(node: ast.AST) -> Iterator[str]:
    """Statements only: expressions hold no docstrings, and going through them would take most of the time."""
    if isinstance(node, SCOPES) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield first.value.value
    for field in INNER:
        for inner in getattr(node, field, ()):
            yield from _walk(inner)

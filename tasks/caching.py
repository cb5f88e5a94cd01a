"""The cache key of a stage: its inputs, and the code that computes.

Prefect's own policies hash the lines of the task function alone: after an edit of a function that it calls, the stale
result comes back. Here the key covers the syntax trees (comments and docstrings apart) of everything the task reaches
inside this project: the definitions of its own `task.py` that it uses, and the import closure of the modules that these
name. A pruner that arrives as a parameter brings the module of its class, so an edited method recomputes its own runs
and not its neighbours'. Versions of the numerical libraries belong to the key too.
"""

import ast
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import platform
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tasks.handles import Checkpoint, Tokens

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "safetensors")
TASK_MAKERS = {"stage", "uncached"}
PACKAGE = "tasks"
BESIDE = {"tasks.caching", "tasks.stage", "tasks.progress", "tasks.record.home"}  # they carry results and compute none


def cache_key(function: Callable) -> Callable[[Any, dict[str, Any]], str]:
    """A `cache_key_fn` for Prefect: (context, parameters) -> key, for the task made from `function`."""

    def key(context: Any, parameters: dict[str, Any]) -> str:
        material = {
            "task": f"{function.__module__}.{function.__qualname__}",
            "code": task_code(function),
            "inputs": {name: canonical(value) for name, value in sorted(parameters.items())},
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "python": platform.python_version(),
        }
        digest = hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()
        return f"{function.__name__}-{digest[:40]}"

    return key


def code_of(function: Callable, inputs: dict[str, Any]) -> str:
    """SHA-256 of all code of a stage: what `function` runs, and the classes among its inputs."""
    classes = sorted(set(_classes_in(canonical(inputs))))
    return hashlib.sha256("\n".join([task_code(function), *classes]).encode()).hexdigest()


def canonical(value: Any) -> Any:
    """`value` as JSON for the key. Handles count by their content hash, so a moved folder changes nothing."""
    if isinstance(value, Checkpoint | Tokens):
        return {"hash": value.hash, "kind": type(value).__name__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: canonical(getattr(value, field.name)) for field in dataclasses.fields(value)}
        module, name = type(value).__module__, type(value).__qualname__
        return {"class": f"{module}.{name}", "code": modules_code(module), "fields": fields}
    if isinstance(value, dict):
        return {str(name): canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a stage's input must be plain data or a frozen dataclass, not {type(value).__name__}")


def task_code(function: Callable) -> str:
    """SHA-256 of what `function` runs: the definitions of its module that it reaches, and the modules these import."""
    source = Path(inspect.getfile(function))
    definitions, imports = _top_level(source)
    reached, modules, todo = set[str](), set[str](), [function.__name__]
    while todo:
        name = todo.pop()
        if name in imports:
            modules.add(imports[name])
        if name in reached or name not in definitions:
            continue
        reached.add(name)
        for node in ast.walk(_without_task_makers(definitions[name])):
            if isinstance(node, ast.Name):
                todo.append(node.id)
            modules.update(_imported(node))
    own = "".join(_dump(definitions[name]) for name in sorted(reached))
    return hashlib.sha256((own + modules_code(*sorted(modules))).encode()).hexdigest()


def modules_code(*names: str) -> str:
    """SHA-256 over the syntax trees of the named modules and of everything of this project that they import."""
    closure, todo = dict[str, str](), [name for name in names if _is_ours(name)]
    while todo:
        name = todo.pop()
        if name in closure or name in BESIDE:
            continue
        path = _file_of(name)
        if path is None:
            continue
        closure[name], imports = _digest(path)
        todo += imports
    return hashlib.sha256("".join(f"{name}\n{closure[name]}\n" for name in sorted(closure)).encode()).hexdigest()


def _classes_in(value: Any) -> Iterator[str]:
    """The name and the code of every class inside what `canonical` made."""
    if isinstance(value, dict):
        if "class" in value and "code" in value:
            yield f"{value['class']} {value['code']}"
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _classes_in(item)


def _without_task_makers(definition: ast.AST) -> ast.AST:
    if not isinstance(definition, ast.FunctionDef):
        return definition
    made = [decorator for decorator in definition.decorator_list if _name_called(decorator) not in TASK_MAKERS]
    return ast.Module(body=[definition.args, *made, *definition.body], type_ignores=[])  # type: ignore[list-item]


def _name_called(node: ast.AST) -> str | None:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _digest(path: Path) -> tuple[str, list[str]]:
    """SHA-256 of a module's bare tree, and the modules of this project that it imports.

    A module that compiles C++ has it beside itself, in a file of its name, which counts as it is.
    """
    stat, native = path.stat(), path.with_suffix(".cpp")
    digest, imports = _digest_version(path, stat.st_mtime_ns, stat.st_size)
    if native.is_file():
        digest += hashlib.sha256(native.read_bytes()).hexdigest()
    return digest, imports


@cache
def _digest_version(path: Path, mtime_ns: int, size: int) -> tuple[str, list[str]]:
    """Of one version of a file; a long-lived worker sees an edit because time and size are part of the key."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = sorted({module for node in ast.walk(tree) for module in _imported(node)})
    return hashlib.sha256(_dump(tree).encode()).hexdigest(), imports


def _top_level(path: Path) -> tuple[dict[str, ast.AST], dict[str, str]]:
    """The definitions of a module by name, and for each imported name the module of this project that it comes from."""
    definitions: dict[str, ast.AST] = {}
    imports: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            definitions |= {
                name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
            for alias in node.names:
                imports[alias.asname or alias.name] = _module_or_member(node.module, alias.name)
        elif isinstance(node, ast.Import):
            imports |= {
                alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if _is_ours(alias.name)
            }
    return definitions, imports


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module and _is_ours(node.module):
        yield from (_module_or_member(node.module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _is_ours(alias.name))


def _module_or_member(module: str, name: str) -> str:
    """`from a.b import c`: c may be a submodule or a name inside a.b."""
    return f"{module}.{name}" if _file_of(f"{module}.{name}") else module


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == PACKAGE and module not in BESIDE


@cache
def _package_folder() -> Path:
    """Where this package is, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def _file_of(module: str) -> Path | None:
    base = _package_folder().joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _dump(tree: ast.AST) -> str:
    """The tree as text without docstrings; positions and comments are not part of it."""
    bare = ast.parse(ast.unparse(tree))
    for node in ast.walk(bare):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):  # a task's name, tags and time limits compute nothing
            node.decorator_list = [made for made in node.decorator_list if _name_called(made) not in TASK_MAKERS]
    return ast.dump(bare)

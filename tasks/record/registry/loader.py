"""The part of this project that a registered model carries with it: the modules that load it, and what these import.

A process that has only MLflow, torch, transformers and safetensors can then load a version, now and after this project
has changed.
"""

import ast
from importlib import resources
from pathlib import Path

ENTRIES = {  # kind of a checkpoint that transformers alone cannot load -> modules that do
    "packed": ("tasks.prune.pack",),
    "sparse_inputs": ("tasks.model.load", "tasks.prune.activation.folder", "tasks.prune.activation.methods"),
}


def copy_loader(folder: Path, kind: str) -> Path:
    """Write the package `tasks` into `folder`, reduced to ENTRIES of a kind and their imports, and return its path.

    Its `__init__.py` files are empty: only modules are needed, and the real ones may import more than is there. The C++
    that a module compiles goes with it.
    """
    todo, copied = [*ENTRIES[kind]], set[str]()
    while todo:
        module = todo.pop()
        text, native = _source(module), _source(module, ".cpp")
        if text is None or module in copied:
            continue
        copied.add(module)
        copy = folder.joinpath(*module.split(".")).with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, encoding="utf-8")
        if native is not None:
            copy.with_suffix(".cpp").write_text(native, encoding="utf-8")
        todo += _imports(text)
    package = folder / "tasks"
    for place in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (place / "__init__.py").touch()
    return package


def _source(module: str, ending: str = ".py") -> str | None:
    """The text of a module of this project, or of the C++ beside it; None for a package, or what is no module."""
    package, *places = module.split(".")
    file = resources.files(package).joinpath(*places[:-1], f"{places[-1]}{ending}") if places else None
    return file.read_text(encoding="utf-8") if file is not None and file.is_file() else None


def _imports(text: str) -> list[str]:
    """What a module may import from this project: `from tasks.a import b` is the module tasks.a or tasks.a.b."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in nodes if node.module and node.module.split(".")[0] == "tasks"]
    return [
        name
        for node in ours
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        if name
    ]

"""Who may import whom: pure modules run where only torch, transformers, safetensors, numpy and scipy are."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUESTS = {  # library -> the places that may import it
    "prefect": ("tasks/*/task.py", "tasks/stage.py", "tasks/progress.py", "flows/*.py"),
    "mlflow": ("tasks/record/registry/*.py",),
    "duckdb": ("tasks/record/*.py",),
    "pyarrow": ("tasks/record/*.py",),
    "matplotlib": ("tasks/record/pages/*.py",),
    "datasets": ("tasks/data/sources.py", "tasks/evaluate/harness.py"),
    "lm_eval": ("tasks/evaluate/harness.py",),
    "gymnasium": ("tasks/train_controller/env.py",),
    "psutil": ("tasks/train_controller/state.py",),
    "fastapi": ("tasks/train_controller/serve.py",),
    "starlette": ("tasks/train_controller/serve.py",),
    "uvicorn": ("tasks/train_controller/serve.py", "flows/server.py"),
    "prometheus_client": ("tasks/train_controller/service/metrics.py",),
    "pydantic": (
        "flows/activation_choices.py",
        "flows/allocator_choices.py",
        "flows/choices.py",
        "flows/controller_choices.py",
        "flows/evaluate_choices.py",
        "flows/iterative_choices.py",
        "flows/methods.py",
        "flows/profile_choices.py",
        "flows/recoveries.py",
        "flows/runners.py",
        "flows/texts.py",
    ),
    "rich": ("tasks/progress.py", "tasks/stage.py", "flows/*.py"),
    "pandas": (),
}
HOSTS = ("env.py", "serve.py", "metrics.py")  # of the controller's room: they import their guests at the top
DOORS = ("task.py", "__main__.py")  # of a room: they bring rooms together
BESIDE = {"handles", "network", "secret"}  # pure files beside the rooms: every room may know them, they know no room
MAY_IMPORT = {  # a pure room -> the pure rooms it may know
    "data": set(),
    "model": set(),
    "calibrate": {"model"},
    "prune": {"model", "calibrate"},
    "evaluate": {"model"},
    "recover": {"model"},
    "train_controller": {"prune", "calibrate", "model", "evaluate"},
    "record": {"train_controller", "prune", "model", "evaluate"},
}
BARE_IMPORT = """
import importlib, sys
for guest in {blocked}:
    sys.modules[guest] = None  # as if it were not installed
for name in {modules}:
    importlib.import_module(name)
print("fine")
"""


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_pure(path: Path) -> bool:
    place = path.relative_to(ROOT / "tasks")
    if place.parts[0] == "train_controller" and path.name in HOSTS:
        return False
    return path.name != "task.py" and place.parts[0] != "record" and place.name not in ("stage.py", "progress.py")


def test_every_guest_stays_in_its_places():
    for path in sources("tasks", "flows"):
        place = path.relative_to(ROOT)
        for guest in {name.split(".")[0] for name in imported(path)} & GUESTS.keys():
            assert any(place.match(allowed) for allowed in GUESTS[guest]), f"{place} imports {guest}"


def test_nothing_imports_the_flows_and_rooms_know_only_their_neighbours():
    for path in sources("tasks"):
        place = path.relative_to(ROOT)
        ours = {name for name in imported(path) if name.split(".")[0] in ("tasks", "flows")}
        assert not any(name.startswith("flows") for name in ours), place
        if path.stem in BESIDE and len(place.parts) == 2:
            assert not ours, f"{place} imports {ours}"
        if len(place.parts) < 3 or path.name in DOORS:
            continue
        room = place.parts[1]
        rooms = {name.split(".")[1] for name in ours if name.count(".") >= 1}
        neighbours = rooms - {room} - BESIDE
        assert neighbours <= MAY_IMPORT[room], f"{place} imports {neighbours - MAY_IMPORT[room]}"


def test_the_pure_modules_import_with_the_guests_blocked():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("tasks")
        if is_pure(path)
    ]
    script = BARE_IMPORT.format(blocked=set(GUESTS) | {"accelerate"}, modules=modules)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_files_stay_small_and_speak_through_their_callers():
    for path in sources("tasks", "flows"):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(ROOT)
        assert len(text.splitlines()) <= 250, f"{place} is too long"
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        if place.parts[0] == "tasks":
            assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), place

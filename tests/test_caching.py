"""The cache key follows the inputs and the code that computes, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.caching import canonical, code_of, modules_code
from tasks.handles import Checkpoint
from tasks.prune import PRUNERS, UPDATES
from tasks.prune.task import pack, prune
from tasks.prune.weight.pattern import NM
from tasks.prune.weight.recipe import Recipe

ROOT = Path(__file__).parents[1]
PRINT_KEYS = """
import json
from tasks.handles import Checkpoint, Tokens
from tasks.prune import PRUNERS, UPDATES
from tasks.prune.task import prune
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe

model = Checkpoint(hash="m", folder="/anywhere")
counts = dict.fromkeys(("documents", "text_bytes", "tokens", "windows", "window"), 1)
tokens = Tokens(hash="t", folder="x", source="s", dataset_hash="d", **counts)
inputs = dict(model=model, calibration=tokens, allocation=None, device="cpu")
recipes = {name: Recipe(pruner=PRUNERS[name](), pattern=parse_pattern("2:4")) for name in PRUNERS}
recipes["refit"] = Recipe(pruner=PRUNERS["wanda"](), pattern=parse_pattern("2:4"), update=UPDATES["refit"]())
print(json.dumps({name: prune.cache_key_fn(None, inputs | {"recipe": recipe}) for name, recipe in recipes.items()}))
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package that a test may edit."""
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    return tmp_path


def keys_of(folder: Path) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "ESPALIER_ARTIFACTS": str(folder / "artifacts")}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_KEYS], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_edit_changes_the_keys_of_what_it_computes_and_of_nothing_else(copied: Path):
    weight = copied / "tasks/prune/weight"
    original = keys_of(copied)
    assert len(set(original.values())) == len(original)

    (weight / "wanda.py").write_text("# a comment\n" + (weight / "wanda.py").read_text() + "\n\n# another\n")
    assert keys_of(copied) == original

    (weight / "wanda.py").write_text((weight / "wanda.py").read_text() + "\nEDITED = 1\n")
    edited = keys_of(copied)
    assert changed(original, edited) == {"wanda", "refit"}  # a refit of what Wanda keeps

    (weight / "refit.py").write_text((weight / "refit.py").read_text() + "\nEDITED = 1\n")
    assert changed(edited, refitted := keys_of(copied)) == {"refit"}

    walk = copied / "tasks/calibrate/walk.py"  # not named by the task: reached through apply.py
    walk.write_text(walk.read_text() + "\nEDITED = 1\n")
    assert changed(refitted, keys_of(copied)) == set(original)


def test_what_only_carries_results_is_not_part_of_the_key(copied: Path):
    original = keys_of(copied)
    for name in ("stage.py", "record/home.py", "evaluate/perplexity.py"):
        path = copied / "tasks" / name
        path.write_text(path.read_text() + "\nEDITED = 1\n")
    assert keys_of(copied) == original


def test_a_handle_counts_by_its_content_not_its_place():
    here, there = (Checkpoint(hash="h", folder=folder) for folder in ("/a", "/b"))
    assert canonical(here) == canonical(there) != canonical(Checkpoint(hash="other", folder="/a"))


def test_an_input_without_a_canonical_form_is_refused():
    with pytest.raises(TypeError, match="plain data"):
        canonical({"a": object()})


def test_the_code_of_a_stage_follows_its_own_code_and_its_methods_and_no_values():
    def code(recipe: Recipe, **inputs: object) -> str:
        return code_of(prune.fn, {"recipe": recipe, **inputs})

    wanda, magnitude = (Recipe(pruner=PRUNERS[name](), pattern=NM()) for name in ("wanda", "magnitude"))
    refitted = Recipe(pruner=PRUNERS["wanda"](), pattern=NM(), update=UPDATES["refit"]())
    assert code(wanda) == code(wanda, model=Checkpoint(hash="h", folder="/a"), device="cpu")
    assert code(wanda) == code(Recipe(pruner=PRUNERS["wanda"](), pattern=NM(n=4, m=8)))
    assert len({code(wanda), code(magnitude), code(refitted), code_of(pack.fn, {"recipe": wanda})}) == 4


def test_the_c_plus_plus_of_a_module_belongs_to_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.caching._package_folder", lambda: tmp_path)
    (tmp_path / "product.py").write_text("SOURCE = 1\n")
    codes = [modules_code("tasks.product")]
    for content in ("int one;", "int two;"):
        (tmp_path / "product.cpp").write_text(content)
        codes.append(modules_code("tasks.product"))
    assert len(set(codes)) == 3

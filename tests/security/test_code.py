"""No pickle is read from disk, and code that a folder brings runs only where it is asked for by name."""

import ast
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.data.task import tokenize
from tasks.evaluate.task import evaluate
from tasks.handles import Checkpoint
from tasks.model.folder import fingerprint
from tasks.prune.task import pack, prune
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.wanda import Wanda
from tasks.record import home
from tasks.stage import open_folder
from tests.cases import llama

ROOT = Path(__file__).parents[2]
PICKLING = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ASKED = {"trust_remote_code", "run_code"}
BY_NAME = {"run_code", "given.run_code", "False"}  # a parameter of that name, an option of that name, no
OURS = {"checkpoint.kind == 'per_layer'", "kind == 'per_layer'", "per_layer", "written_for_it"}  # by the kind stored
RECUT = ("tasks/prune/structure/recut.py", "True")  # only of the kind per_layer, which load_to_cut sees to
OWN_CODE = {"tasks/prune/structure/per_layer.py"}  # runs the modeling file of this project, which it has just written


@cache
def nodes(*kinds: type[ast.AST]) -> list[tuple[str, Any]]:
    """Of the whole source, each with the file that it stands in."""
    files = sorted([*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
    trees = [(file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    return [(place, node) for place, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def calls() -> list[tuple[str, ast.Call]]:
    return [(place, node) for place, node in nodes(ast.Call, ast.Import, ast.ImportFrom) if isinstance(node, ast.Call)]


def test_nothing_in_the_source_reads_a_pickle():
    for place, node in nodes(ast.Call, ast.Import, ast.ImportFrom):
        named = [] if isinstance(node, ast.Call) else [alias.name for alias in node.names]
        named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in named} & PICKLING, place
    for place, call in calls():
        said = ast.unparse(call.func)
        assert said not in ("torch.load", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load", "eval"), place
        assert said != "exec" or place in OWN_CODE, place
        assert not {"allow_pickle", "weights_only"} & {word.arg for word in call.keywords}, place


def test_code_of_a_folder_is_asked_for_by_name_wherever_a_model_is_loaded():
    asked = [(place, ast.unparse(word.value)) for place, call in calls() for word in call.keywords if word.arg in ASKED]
    assert len(asked) > 10
    for place, value in asked:
        assert value in BY_NAME | OURS or (place, value) == RECUT, f"{place}: {value}"
    for place, call in calls():  # transformers asks on the terminal where it is told nothing
        if ast.unparse(call.func).startswith("Auto") and ast.unparse(call.func).endswith(".from_pretrained"):
            assert {"trust_remote_code"} & {word.arg for word in call.keywords}, place


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a pickle was read")


@pytest.fixture
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    for module, name in ((pickle, "load"), (pickle, "Unpickler"), (torch, "load"), (torch.serialization, "load")):
        monkeypatch.setattr(module, name, refuse)
    return refuse


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    llama(num_hidden_layers=1).save_pretrained(tmp_path / "model")
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(tmp_path / "model")
    return Checkpoint(hash=fingerprint(tmp_path / "model"), folder=str(tmp_path / "model"))


def test_the_stages_run_where_no_pickle_can_be_read(no_pickle, model, tmp_path):
    with pytest.raises(AssertionError, match="a pickle was read"):
        torch.load(tmp_path / "anything.bin")
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{number % 97}" for number in range(200)))
    texts = {"source": str(text), "identity": "", "model": model, "window": 8}
    calibration = tokenize.fn(**texts, role="calibration", samples=1)
    evaluation = tokenize.fn(**texts, role="evaluation")
    recipe = Recipe(pruner=Wanda(), pattern=parse_pattern("2:4"))
    pruned = prune.fn(model=model, calibration=calibration, recipe=recipe, allocation=None, device="cpu")
    packed = pack.fn(checkpoint=pruned.checkpoint, pattern=recipe.pattern, allocation=None)
    row = evaluate.fn(checkpoint=packed.checkpoint, subject="pruned", tokens=evaluation, device="cpu")
    assert row.sparsity == 0.5
    endings = {path.suffix for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".jinja", ""}, endings


def test_code_runs_from_the_store_alone(tmp_path):
    (tmp_path / "model").mkdir()
    brought = Checkpoint(hash="a" * 64, folder=str(tmp_path / "model"), kind="per_layer")
    with pytest.raises(home.Damaged, match="code that it brings is run from the store alone"):
        open_folder(brought)

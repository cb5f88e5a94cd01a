"""A sparse model as a folder: read by another process it computes the same, and nothing else can be read into it."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.model.anatomy import dissect
from tasks.prune import MITIGATIONS, SELECTIONS
from tasks.prune.activation import folder as module
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.folder import FILES, load_sparse, save_sparse
from tasks.prune.activation.learn import Learn, learn
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.weight.pattern import parse_pattern
from tests.cases import batches, llama
from tests.prune.activation.test_sparse_inputs import logits

METHODS = {**SELECTIONS, **MITIGATIONS}
TEXT = batches(*[(2, 24)] * 3)


def made(selection="topk", mitigations=("lpts",), pattern="50%", **changes):
    return ActivationRecipe(
        selection=SELECTIONS[selection](),
        pattern=parse_pattern(pattern),
        mitigations=tuple(MITIGATIONS[each](**({"rank": 2} if each == "rsparse" else {})) for each in mitigations),
        **changes,
    )


@pytest.fixture
def folder(tmp_path):
    with sparse_inputs(llama(), recipe := made(), TEXT) as installed:
        learn(installed, TEXT, Learn(epochs=1, rate=0.01))
        save_sparse(installed, recipe, "abc", tmp_path, METHODS)
    return tmp_path


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("mitigations", [("dpts", "var", "ls"), ("spts", "lpts", "rsparse"), ()], ids=str)
def test_what_was_saved_computes_the_same(selection, mitigations, tmp_path):
    model, recipe = (
        llama(),
        made(selection, mitigations, "2:4" if selection == "nm" else "50%", modules=("mlp.*", "o_proj")),
    )
    with sparse_inputs(model, recipe, TEXT) as installed:
        expected = logits(model)
        save_sparse(installed, recipe, "abc", tmp_path, METHODS)
    other = llama()
    loaded, again = load_sparse(other, "abc", tmp_path, METHODS)
    assert again == recipe
    assert torch.equal(logits(other), expected)
    loaded.remove()
    assert torch.equal(logits(other), logits(llama()))


def test_the_same_model_gives_the_same_bytes(folder, tmp_path):
    model = llama()
    loaded, recipe = load_sparse(model, "abc", folder, METHODS)
    save_sparse(loaded, recipe, "abc", tmp_path / "again", METHODS)
    for name in (FILES.index, FILES.tensors):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_fresh_process_computes_the_same(folder, tmp_path):
    model = llama()
    load_sparse(model, "abc", folder, METHODS)
    llama().save_pretrained(tmp_path / "dense")
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from transformers import AutoModelForCausalLM\n"
        "from tasks.prune import MITIGATIONS, SELECTIONS\n"
        "from tasks.prune.activation.folder import load_sparse\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "load_sparse(model, 'abc', Path(sys.argv[2]), {**SELECTIONS, **MITIGATIONS})\n"
        "with torch.no_grad(): print(model(torch.arange(12)[None]).logits.double().sum().item())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "dense"), str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert float(printed) == pytest.approx(logits(model, torch.arange(12)[None]).double().sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "^activation: .* is other of version 1"),
        ({"version": 2}, "is espalier activation sparsity of version 2"),
        ({"model_hash": "xyz"}, "is of model xyz, valid is one of abc"),
        ({"selection": {"method": "unknown"}}, "the method 'unknown' is not known; valid is topk"),
    ],
)
def test_another_index_is_refused(folder, change, says):
    index = json.loads((folder / FILES.index).read_text()) | change
    (folder / FILES.index).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=says):
        load_sparse(llama(), "abc", folder, METHODS)


def spoiled(index, number, **patterns):
    index["patterns"][number] |= patterns


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda index: index.pop("patterns"), "is no recipe: 'patterns'"),
        (lambda index: index["patterns"].pop(), "patterns of 2 blocks are stored, the model has 3"),
        (lambda index: spoiled(index, 2, **{"mlp/down_prj": "50%"}), "block 2 has no input 'mlp/down_prj', valid is"),
        (lambda index: spoiled(index, 2, **{"mlp/down_proj": "half"}), "^pattern: 'half' is not valid"),
        (lambda index: spoiled(index, 2, **{"mlp/down_proj": "2:4"}), "^pattern: 2:4 given, topk keeps a share"),
        (lambda index: spoiled(index, 2, **{"mlp/down_proj": 5}), "is no recipe"),
        (lambda index: index.update(modules=[3]), "is no recipe"),
        (lambda index: index["mitigations"].append({"method": "topk"}), "'topk' is not known; valid is var"),
        (lambda index: index.update(selection={"method": "var"}), "'var' is not known; valid is topk"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_and_changes_nothing(folder, change, says):
    index, model = json.loads((folder / FILES.index).read_text()), llama()
    change(index)
    (folder / FILES.index).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=says):
        load_sparse(model, "abc", folder, METHODS)
    assert torch.equal(logits(model), logits(llama()))


@pytest.mark.parametrize(
    "damaged", [torch.zeros(7), torch.ones(1), torch.full((32,), torch.nan), torch.zeros(32).int()]
)
def test_tensors_of_another_shape_or_not_finite_are_refused(folder, damaged):
    name, model = "2.mlp.down_proj.prepared.0.delta", llama()
    save_file(load_file(folder / FILES.tensors) | {name: damaged}, folder / FILES.tensors)
    with pytest.raises(ValueError, match=rf"^activation: {name} of .*, valid is finite floats of shape \(32,\)$"):
        load_sparse(model, "abc", folder, METHODS)
    assert torch.equal(logits(model), logits(llama()))


def test_what_was_stored_goes_where_the_weights_are(folder, monkeypatch):
    model = llama()
    anatomy = dissect(model)  # which runs it, as it cannot be elsewhere
    monkeypatch.setattr(module, "dissect", lambda _: anatomy)
    model.to("meta")
    load_sparse(model, "abc", folder, METHODS)
    assert {each.device.type for each in model.state_dict().values()} == {"meta"}


def test_damaged_and_missing_tensors_are_refused_and_change_nothing(folder):
    model, tensors = llama(), load_file(folder / FILES.tensors)
    gone = "2.mlp.down_proj.prepared.0.delta"
    save_file({name: value for name, value in tensors.items() if name != gone}, folder / FILES.tensors)
    with pytest.raises(ValueError, match=rf"has no {gone}"):
        load_sparse(model, "abc", folder, METHODS)
    (folder / FILES.tensors).write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_sparse(model, "abc", folder, METHODS)
    assert torch.equal(logits(model), logits(llama()))

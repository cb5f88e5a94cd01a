"""Some linears are pruned and the others are not: by name, in every order of the block, packed and permuted too."""

import pytest
import torch

from tasks.evaluate.size import counted_sparsity
from tasks.handles import Checkpoint
from tasks.model.folder import fingerprint
from tasks.model.modules import is_meant
from tasks.prune.allocation import Allocation
from tasks.prune.pack import read_packed
from tasks.prune.task import pack
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.reconstruct import Reconstruct
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tests.cases import FAMILIES, batches, llama
from tests.prune.weight.test_apply import weights


def test_a_name_is_its_last_part_or_a_pattern_for_all_of_it():
    said = ("down_proj", "mlp.*", "*", "*_proj", "mlp.down_proj")
    assert all(is_meant("mlp.down_proj", (word,)) for word in said)
    assert not any(is_meant("mlp.down_proj", (word,)) for word in ("down", "mlp", "attn.*", "proj", ""))


@pytest.mark.parametrize("recipe", [{}, {"order": "group"}, {"permute": True}])
@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
def test_the_others_stay_as_they_are_to_the_bit(family, recipe):
    model, dense = FAMILIES[family](), weights(FAMILIES[family]())
    chosen = next(name.rpartition(".")[2] for name in reversed(dense))
    rows = prune_model(model, Wanda(), NM(2, 4), batches(), modules=(chosen,), **recipe)
    assert {row.linear.rpartition(".")[2] for row in rows} == {chosen}
    for name, weight_OI in weights(model).items():
        if name.endswith(f".{chosen}"):
            assert (weight_OI == 0).float().mean() == 0.5
        elif recipe != {"permute": True}:  # whose orders may be folded into the linear before
            assert torch.equal(weight_OI, dense[name])
        else:
            assert torch.equal(weight_OI.sort(0).values, dense[name].sort(0).values)
    assert 0 < counted_sparsity(model) < 0.5


@pytest.mark.parametrize("pruner", [Magnitude(), Wanda(), SparseGPT()])
def test_a_block_is_observed_whole_so_the_first_is_pruned_as_if_all_were(pruner):
    all_of_it, some = llama(), llama()
    prune_model(all_of_it, pruner, Unstructured(0.5), batches())
    prune_model(some, pruner, Unstructured(0.5), batches(), modules=("mlp.*",))
    for name, linear in some.model.layers[0].mlp.named_children():
        if hasattr(linear, "weight"):
            assert torch.equal(linear.weight, all_of_it.model.layers[0].mlp.get_submodule(name).weight)


def test_an_allocation_divides_what_is_pruned_of_the_chosen_linears():
    model = llama()
    shares = Allocation(sparsities=(0.25, 0.5, 0.75))
    prune_model(model, Magnitude(), Unstructured(0.5), None, shares, modules=("down_proj",))
    found = [(block.mlp.down_proj.weight == 0).float().mean().item() for block in model.model.layers]
    assert found == [0.25, 0.5, 0.75]


def test_what_is_tuned_keeps_its_zeros():
    model = llama()
    made = {"modules": ("down_proj",), "reconstruct": Reconstruct(epochs=1)}
    prune_model(model, Wanda(), NM(2, 4), batches((2, 24), (2, 24)), **made)
    assert all(((block.mlp.down_proj.weight.reshape(-1, 4) != 0).sum(1) <= 2).all() for block in model.model.layers)


def test_packed_the_others_are_dense(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    model = llama().bfloat16()
    prune_model(model, Magnitude(), NM(2, 4), None, modules=("down_proj",))
    model.save_pretrained(tmp_path / "source")
    checkpoint = Checkpoint(hash=fingerprint(tmp_path / "source"), folder=str(tmp_path / "source"))
    made = pack.fn(checkpoint=checkpoint, pattern=NM(2, 4), allocation=None, modules=("down_proj",))
    assert made.formats["nm"] == len(model.model.layers)
    assert made.formats.keys() == {"nm", "dense"}
    own = model.state_dict()
    assert all(
        torch.equal(weight, own[name]) for name, weight in read_packed(tmp_path / "artifacts" / made.checkpoint.folder)
    )


def test_names_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match=r"^modules: 'neck' given, which no block has; choose of self_attn.q_proj"):
        prune_model(llama(), Magnitude(), NM(2, 4), None, modules=("neck",))
    with pytest.raises(ValueError, match=r"^modules: none given"):
        Recipe(pruner=Magnitude(), pattern=NM(2, 4), modules=())

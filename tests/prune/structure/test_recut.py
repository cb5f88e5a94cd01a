"""A model that was exported per layer can be cut again; how far a model can be cut is counted."""

import pytest
import torch
from transformers import LlamaForCausalLM

from tasks.model.units import units_of
from tasks.prune.structure.export import export_model
from tasks.prune.structure.reach import reach_of
from tasks.prune.structure.recut import load_cut
from tasks.prune.structure.width import slice_units
from tests.cases import BLOCKS, batches, gemma, llama, opt, qwen2, qwen3


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


FIRST = {0: {"head_groups": indices(1), "channels": torch.arange(9)}, 2: {"channels": torch.arange(3, 40)}}
SECOND = {0: {"channels": torch.arange(2, 7)}, 1: {"head_groups": indices(0)}}


def parameters_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def logits(model):
    return torch.cat([model(ids).logits.flatten() for ids in batches()])


@pytest.mark.parametrize("make", [llama, qwen2, qwen3, opt])
def test_cut_stored_and_cut_again_is_cut_twice_in_memory(make, tmp_path):
    for name in ("dense", "cut", "again"):
        (tmp_path / name).mkdir()
    model = make()
    model.save_pretrained(tmp_path / "dense")
    slice_units(model, FIRST)
    export_model(model, "per_layer", tmp_path / "dense", tmp_path / "cut")
    loaded = load_cut(tmp_path / "dense", tmp_path / "cut")
    assert type(loaded) is type(model)
    assert torch.equal(logits(loaded), logits(model))
    for each in (loaded, model):
        slice_units(each, SECOND)
    assert torch.equal(logits(loaded), logits(model))
    export_model(loaded, "per_layer", tmp_path / "cut", tmp_path / "again")
    assert torch.equal(logits(load_cut(tmp_path / "dense", tmp_path / "again")), logits(model))


@pytest.mark.parametrize(("make", "round_to"), [(llama, 8), (qwen2, 16), (gemma, 64)])
def test_the_least_that_can_be_left_is_what_is_left_when_all_goes(make, round_to):
    model = make()
    reach = reach_of(model, round_to=round_to)
    assert reach.parameters == parameters_of(model)
    assert reach.of_blocks == sum(map(parameters_of, model.model.layers))
    lost = []
    for kind, step in (("head_groups", 1), ("channels", round_to)):
        count = units_of(model)[0].of(kind).count
        if count > step:
            with slice_units(model, {0: {kind: torch.arange(count - step)}}):
                lost.append(reach.parameters - parameters_of(model))
    assert reach.unit == min(lost)
    fewest = {"head_groups": indices(0), "channels": torch.arange(round_to)}
    slice_units(model, dict.fromkeys(range(BLOCKS), fewest))
    assert reach.least == parameters_of(model)


class Own(LlamaForCausalLM):
    """No class of transformers, so no folder could name it."""


def test_what_cannot_be_cut_in_stages_gets_one_line():
    narrow = llama(num_key_value_heads=1)
    for model, complaint in (
        (narrow, "round_to: 64 given, no block has more than one head group or step of channels"),
        (Own(llama().config), "model: its blocks cannot be exported with widths of their own"),
    ):
        with pytest.raises(ValueError, match=f"^{complaint}") as error:
            reach_of(model, round_to=64)
        assert "\n" not in str(error.value)

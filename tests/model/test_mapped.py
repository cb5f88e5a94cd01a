import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.model.load import load_model
from tasks.model.mapped import Mapped, mapped_model, own, release, remap
from tests.cases import BLOCKS, FAMILIES, batches, llama
from tests.pages import mapped_pages, needs_smaps

MANY_BLOCKS = {"num_hidden_layers": 24, "hidden_size": 256, "intermediate_size": 1024}


def saved(model, folder, **how):
    model.save_pretrained(folder, **how)
    return folder


@torch.no_grad()
@pytest.mark.parametrize("make", FAMILIES.values())
@pytest.mark.parametrize("tie", [False, True])
def test_a_mapped_model_is_the_model(make, tie, tmp_path):
    folder = saved(make(tie_word_embeddings=tie), tmp_path, max_shard_size="60KB")
    loaded = load_model(folder)
    with mapped_model(folder) as model:
        assert not model.training
        assert model.dtype == loaded.dtype
        assert dict(model.named_parameters()).keys() == dict(loaded.named_parameters()).keys()
        assert all(isinstance(parameter, Mapped) and parameter.is_view for parameter in model.parameters())
        for ids_BT in batches():
            assert torch.equal(model(ids_BT).logits, loaded(ids_BT).logits)
        for name, value in loaded.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name


@needs_smaps
@torch.no_grad()
def test_a_forward_leaves_no_block_in_memory(tmp_path):
    folder = saved(llama(**MANY_BLOCKS), tmp_path)
    with mapped_model(folder) as model:
        block = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
        most = 0

        def look(*_):
            nonlocal most
            most = max(most, mapped_pages())

        for each in model.model.layers:
            each.mlp.register_forward_hook(look)
        before = mapped_pages()
        model.model(batches()[0])
        assert block / 2 < most - before < 2 * block  # it does read a block, and never two
        assert mapped_pages() - before < block / 2


def test_what_is_changed_is_kept_and_its_file_is_not(tmp_path):
    folder = saved(llama(), tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    with mapped_model(folder) as model:
        block = model.model.layers[1]
        own(block.parameters())
        block.mlp.down_proj.weight.data.zero_()
        release(model.parameters())
        assert not block.mlp.down_proj.weight.any()
        assert model.model.layers[0].mlp.down_proj.weight.any()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_view_that_was_changed_by_mistake_never_reaches_the_file(tmp_path):
    folder = saved(llama(), tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    with mapped_model(folder) as model:
        model.model.layers[0].mlp.down_proj.weight.data.zero_()
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_block_becomes_a_view_of_another_file(tmp_path):
    folder = saved(llama(), tmp_path)
    with mapped_model(folder) as model:
        block = model.model.layers[1]
        twice = {f"there.{name}": 2 * value for name, value in block.state_dict().items()}
        save_file(twice, tmp_path / "other.safetensors")
        own(block.parameters())
        remap(block, "there.", tmp_path / "other.safetensors")
        assert all(parameter.is_view for parameter in block.parameters())
        for _ in range(2):
            assert all(torch.equal(value, twice[f"there.{name}"]) for name, value in block.state_dict().items())
            release(block.parameters())
        stored = load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
        assert torch.equal(model.model.layers[0].mlp.up_proj.weight, stored)


def test_a_copy_has_values_of_its_own(tmp_path):
    with mapped_model(saved(llama(), tmp_path)) as model:
        twin = copy.deepcopy(model.model.layers[0])
        release(twin.parameters())
        assert not any(parameter.is_view for parameter in twin.parameters())
        for own_value, value in zip(twin.parameters(), model.model.layers[0].parameters(), strict=True):
            assert torch.equal(own_value, value)


def test_what_has_to_be_converted_is_in_memory(tmp_path):
    model = llama()
    folder = saved(model, tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].double()}, folder / "model.safetensors", {"format": "pt"})
    with mapped_model(folder) as mapped:
        views = [isinstance(parameter, Mapped) for parameter in mapped.parameters()]
        assert views.count(False) == 1
        release(mapped.parameters())
        assert torch.equal(mapped.model.layers[0].mlp.up_proj.weight, model.model.layers[0].mlp.up_proj.weight)


def test_the_hooks_are_gone_in_the_end(tmp_path):
    with mapped_model(saved(llama(), tmp_path)) as model:
        assert sum(len(block._forward_hooks) for block in model.model.layers) == BLOCKS
    assert not any(block._forward_hooks for block in model.model.layers)

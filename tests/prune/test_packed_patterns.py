"""Every linear is packed by its own pattern, as an allocation gives each block its own n:m."""

from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.handles import Checkpoint
from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.folder import fingerprint
from tasks.prune.allocation import Allocation
from tasks.prune.pack import pack_checkpoint, read_packed
from tasks.prune.task import pack
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tests.cases import FAMILIES, llama

BY_BLOCK = ("1:4", "2:4", "3:4")
BITS = {"1:4": 16 + 2, "2:4": 2 * (16 + 2), "3:4": 3 * 16 + 4}  # that four weights take: values, positions or a mask


@pytest.fixture
def pruned(tmp_path):
    """A folder of a bfloat16 Llama whose three blocks are BY_BLOCK, and the pattern of each of its linears."""
    model, patterns = llama().bfloat16(), {}
    prefix, blocks = find_blocks(model)
    for (index, block), text in zip(enumerate(blocks), BY_BLOCK, strict=True):
        for name, linear in linears_of(block).items():
            pattern = patterns[f"{prefix}.{index}.{name}.weight"] = parse_pattern(text)
            linear.weight.data = Magnitude().prune(linear.weight.data, None, pattern)
    model.save_pretrained(tmp_path / "source")
    return tmp_path / "source", patterns


def test_each_tensor_is_stored_by_its_own_pattern(pruned, tmp_path):
    source, patterns = pruned
    summary = pack_checkpoint(source, tmp_path / "packed", patterns)
    for row in summary.tensors:
        text = str(patterns.get(row.name, "dense"))
        assert row.format == {"1:4": "nm", "2:4": "nm", "3:4": "bitmask"}.get(text, "dense"), row.name
        assert 4 * 16 * row.packed_bytes == BITS.get(text, 4 * 16) * row.dense_bytes
    stored = load_file(source / "model.safetensors")
    assert all(torch.equal(weight, stored[name]) for name, weight in read_packed(tmp_path / "packed"))


def test_a_group_that_is_too_full_for_its_own_pattern_is_named(pruned, tmp_path):
    source, patterns = pruned
    stored = load_file(source / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    stored[name][5, 8:12], stored[name][6] = torch.tensor([1.0, 0, 0, 1.0]), 0
    save_file(stored, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"1:4 given, 2 of 4 kept at row 5, input 8 \({name}\)"):
        pack_checkpoint(source, tmp_path / "packed", patterns)
    pack_checkpoint(source, tmp_path / "as_2_of_4", patterns | {name: parse_pattern("2:4")})


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
@pytest.mark.parametrize("pattern", ["2:4", "50%", "50%@matrix"])
def test_the_stage_packs_each_block_by_what_the_allocation_gave_it(family, pattern, tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    model, allocation = FAMILIES[family](), Allocation(sparsities=(0.75, 0.5, 0.25))
    prune_model(model, Magnitude(), parse_pattern(pattern), None, allocation)
    model.save_pretrained(tmp_path / "source")
    checkpoint = Checkpoint(hash=fingerprint(tmp_path / "source"), folder=str(tmp_path / "source"))
    packed = pack.fn(checkpoint=checkpoint, pattern=parse_pattern(pattern), allocation=allocation)
    of_block = len(linears_of(find_blocks(model)[1][0]))
    found = Counter(packed.formats) - Counter(dense=packed.formats["dense"])
    assert found == ({"nm": 2 * of_block, "bitmask": of_block} if pattern == "2:4" else {"bitmask": 3 * of_block})

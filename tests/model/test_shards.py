import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tasks.model.anatomy import find_blocks
from tasks.model.load import load_model, weight_bytes
from tasks.model.mapped import mapped_model, remap
from tasks.model.shards import save_parts
from tests.cases import BLOCKS, FAMILIES, batches, llama


def halved_blocks(model, folder):
    """A file for each block with half its values, of which the model's blocks are then views."""
    folder.mkdir()
    name, blocks = find_blocks(model)
    files = []
    for index, block in enumerate(blocks):
        files.append(folder / f"{index}.safetensors")
        prefix = f"{name}.{index}."
        save_file({prefix + each: value / 2 for each, value in block.state_dict().items()}, files[-1])
        remap(block, prefix, files[-1])
    return files


@torch.no_grad()
@pytest.mark.parametrize("make", FAMILIES.values())
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("one_file_bytes", [0, 1 << 30])
def test_parts_make_a_checkpoint_that_transformers_loads(make, tie, one_file_bytes, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    make(tie_word_embeddings=tie).save_pretrained(source)
    target.mkdir()
    with mapped_model(source) as model:
        save_parts(model, halved_blocks(model, tmp_path / "parts"), source, target, one_file_bytes)
    expected = load_model(source)
    for block in find_blocks(expected)[1]:
        for value in block.state_dict().values():
            value /= 2
    loaded = AutoModelForCausalLM.from_pretrained(target)
    assert torch.equal(loaded(batches()[0]).logits, expected(batches()[0]).logits)
    assert torch.equal(load_model(target)(batches()[0]).logits, expected(batches()[0]).logits)


def test_a_large_one_keeps_a_shard_for_each_part_and_one_for_the_rest(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    llama(tie_word_embeddings=True).save_pretrained(source)
    target.mkdir()
    with mapped_model(source) as model:
        parts = halved_blocks(model, tmp_path / "parts")
        save_parts(model, parts, source, target, one_file_bytes=0)
    shards = sorted(target.glob("*.safetensors"))
    assert [shard.name for shard in shards] == [
        f"model-{number:05d}-of-{BLOCKS + 1:05d}.safetensors" for number in range(1, BLOCKS + 2)
    ]
    assert [shard.read_bytes() for shard in shards[:-1]] == [part.read_bytes() for part in parts]
    assert shards[0].stat().st_nlink == 2  # the same bytes, not a copy
    assert set(load_file(shards[-1])) == {"model.embed_tokens.weight", "model.norm.weight"}
    index = json.loads((target / "model.safetensors.index.json").read_text())
    held = sum(tensor.nbytes for shard in shards for tensor in load_file(shard).values())
    assert index["metadata"]["total_size"] == held < weight_bytes(target)


def test_without_links_parts_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    source, target = tmp_path / "source", tmp_path / "target"
    llama().save_pretrained(source)
    target.mkdir()
    monkeypatch.setattr("os.link", refuse)
    with mapped_model(source) as model:
        save_parts(model, halved_blocks(model, tmp_path / "parts"), source, target, one_file_bytes=0)
    load_model(target)

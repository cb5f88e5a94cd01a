"""What was packed becomes a folder for transformers again, tensor by tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tasks.model.folder import check_folder
from tasks.model.load import load_model
from tasks.prune.pack import pack_checkpoint
from tasks.prune.unpack import read_packed, unpack_checkpoint, unpacked_bytes
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM
from tests.cases import FAMILIES, llama


def packed(model, place):
    """A packed folder of `model`, pruned to 2:4."""
    prune_model(model, Magnitude(), NM(2, 4), None)
    model.save_pretrained(place / "source")
    (place / "source/tokenizer.json").write_text("{}")
    pack_checkpoint(place / "source", place / "packed", NM(2, 4))
    return place / "packed"


@pytest.mark.parametrize("make", [*FAMILIES.values(), lambda: llama(tie_word_embeddings=True).bfloat16()])
def test_transformers_loads_the_same_weights(make, tmp_path):
    unpack_checkpoint(packed(make(), tmp_path), tmp_path / "unpacked")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "source")
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "unpacked")
    assert before.dtype == after.dtype
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "unpacked" / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    check_folder(tmp_path / "unpacked")


@pytest.mark.parametrize("limit", [1, 10_000, 2**20])
def test_shards_are_bounded(limit, tmp_path):
    folder = packed(llama(), tmp_path)
    unpack_checkpoint(folder, tmp_path / "unpacked", shard_bytes=limit)
    shards = [load_file(shard) for shard in sorted(tmp_path.glob("unpacked/*.safetensors"))]
    sizes = [sum(tensor.nbytes for tensor in shard.values()) for shard in shards]
    assert all(size <= limit or len(shard) == 1 for size, shard in zip(sizes, shards, strict=True))
    for size, following in zip(sizes, shards[1:], strict=False):  # none ends before it has to
        assert size + next(iter(sorted(following.items())))[1].nbytes > limit
    assert sum(sizes) == unpacked_bytes(folder)
    assert load_model(tmp_path / "unpacked").num_parameters() == llama().num_parameters()


def test_the_bytes_are_known_from_the_index_alone(tmp_path):
    folder = packed(llama().bfloat16(), tmp_path)
    assert unpacked_bytes(folder) == sum(weight.nbytes for _, weight in read_packed(folder))
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    assert unpacked_bytes(folder) == 2 * llama().num_parameters()
    index = json.loads((folder / "packing.json").read_text())
    (folder / "packing.json").write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(ValueError, match="espalier-packed 2, espalier-packed 1 can be read"):
        unpacked_bytes(folder)


def test_what_is_not_packed_is_refused(tmp_path):
    llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no packing.json"):
        unpack_checkpoint(tmp_path, tmp_path / "unpacked")

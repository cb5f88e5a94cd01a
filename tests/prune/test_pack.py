import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tasks.evaluate.size import count_sparse_linears
from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.folder import fingerprint, weight_bytes
from tasks.model.load import load_model
from tasks.prune import pack
from tasks.prune.pack import load_packed, pack_checkpoint, read_packed
from tasks.prune.semi_structured import to_semi_structured
from tasks.prune.unpack import digest
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, parse_pattern
from tests.cases import FAMILIES, llama


def write(model, pattern, folder):
    """A folder of `model` with its linears pruned by magnitude, and a file that stands for a tokenizer."""
    for linear in linears_of(find_blocks(model)[1]).values():
        linear.weight.data = Magnitude().prune(linear.weight.data, None, pattern)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def source(tmp_path):
    return write(llama(), NM(2, 4), tmp_path / "source")


def same_weights(model, other):
    state, other_state = model.state_dict(), other.state_dict()
    return state.keys() == other_state.keys() and all(torch.equal(state[name], other_state[name]) for name in state)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back(family, tmp_path):
    source = write(FAMILIES[family](), NM(2, 4), tmp_path / "source")
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    packed = load_packed(tmp_path / "packed")
    assert same_weights(packed, load_model(source))
    assert not packed.training
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(packed(ids).logits, load_model(source)(ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("text", "format"), [("2:4", "nm"), ("1:4", "nm"), ("4:8", "bitmask"), ("50%", "bitmask")])
def test_every_linear_is_packed_and_nothing_else(text, format, dtype, tmp_path):
    source = write(llama().to(dtype), parse_pattern(text), tmp_path / "source")
    summary = pack_checkpoint(source, tmp_path / "packed", parse_pattern(text))
    formats = {row.name: row.format for row in summary.tensors}
    assert set(formats) == set(load_file(source / "model.safetensors"))
    for name, chosen in formats.items():
        assert chosen == (format if "_proj" in name else "dense"), name
    assert sum(row.dense_bytes for row in summary.tensors) < weight_bytes(source)
    assert sum(row.packed_bytes for row in summary.tensors) < weight_bytes(tmp_path / "packed") < weight_bytes(source)
    if (text, dtype) == ("2:4", torch.bfloat16):
        assert all(row.packed_bytes == 0.5625 * row.dense_bytes for row in summary.tensors if row.format == "nm")
    assert same_weights(load_packed(tmp_path / "packed"), load_model(source))


def test_the_same_input_gives_the_same_bytes(source, tmp_path):
    for name in ("once", "again"):
        pack_checkpoint(source, tmp_path / name, NM(2, 4))
    assert bytes_of(tmp_path / "once") == bytes_of(tmp_path / "again")


@pytest.mark.parametrize("shard_bytes", [1, 10_000])
def test_shards(source, tmp_path, shard_bytes):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4), shard_bytes=shard_bytes)
    shards = sorted(tmp_path.glob("packed/packed-*.safetensors"))
    assert len(shards) > 2
    held = [[tensor.nbytes for tensor in load_file(shard).values()] for shard in shards]
    assert all(sum(sizes) <= shard_bytes or len(sizes) <= 2 for sizes in held)  # values and positions stay together
    assert same_weights(load_packed(tmp_path / "packed"), load_model(source))
    shards[1].unlink()
    with pytest.raises(ValueError, match=f"cannot be read from .*{shards[1].name}"):
        load_packed(tmp_path / "packed")


def test_a_source_in_shards_gives_the_same_packed_bytes(source, tmp_path):
    load_model(source).save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shutil.copyfile(source / "tokenizer.json", tmp_path / "shards/tokenizer.json")
    pack_checkpoint(tmp_path / "shards", tmp_path / "a", NM(2, 4))
    pack_checkpoint(source, tmp_path / "b", NM(2, 4))
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_the_source_is_never_in_memory_as_a_whole(source, tmp_path, monkeypatch):
    read_tensors, references, alive = pack._read_tensors, [], []

    def watched(file_of):
        for name, weight in read_tensors(file_of):
            if "_proj" in name:
                references.append(weakref.ref(weight))
            alive.append(sum(reference() is not None for reference in references))
            yield name, weight

    monkeypatch.setattr(pack, "_read_tensors", watched)
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    assert len(references) == 21
    assert max(alive) <= 3  # the new one, the one before, and the generators' hold on it


def test_configuration_and_tokenizer_travel_along(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    packed = bytes_of(tmp_path / "packed")
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert packed[name] == (source / name).read_bytes()
    before = fingerprint(tmp_path / "packed")
    (tmp_path / "packed/packing.json").write_text("{}")
    assert fingerprint(tmp_path / "packed") != before


def test_transformers_cannot_take_it_for_a_whole_model(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "packed")


def test_a_linear_that_is_not_of_the_pattern_is_named(source, tmp_path):
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][7, 8:12] = 1
    weights["model.layers.1.mlp.up_proj.weight"][8] = 0
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"4 of 4 kept at row 7, input 8 \(model.layers.1.mlp.up_proj.weight\)"):
        pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    assert not (tmp_path / "packed/packing.json").exists()
    with pytest.raises(ValueError, match=r"no packing.json.*unfinished"):
        load_packed(tmp_path / "packed")


def test_zeros_of_tensors_that_were_not_pruned_are_taken_as_they_come(tmp_path):
    model = llama()
    model.get_input_embeddings().weight.data[:60] = 0  # more than 3:4 asks for, and in whole rows
    source = write(model, NM(3, 4), tmp_path / "source")
    linears = [name for name in load_file(source / "model.safetensors") if "_proj" in name]
    summary = pack_checkpoint(source, tmp_path / "packed", dict.fromkeys(linears, NM(3, 4)))
    formats = {row.name: row.format for row in summary.tensors}
    assert formats["model.embed_tokens.weight"] == "bitmask"
    assert same_weights(load_packed(tmp_path / "packed"), load_model(source))
    with pytest.raises(ValueError, match=r"row 60, input 0 \(model.embed_tokens.weight\)"):
        pack_checkpoint(source, tmp_path / "all", NM(3, 4))
    with pytest.raises(ValueError, match=r"patterns: .* has no tensor 'q_proj'"):
        pack_checkpoint(source, tmp_path / "unknown", {"q_proj": NM(3, 4)})


def test_a_packed_folder_is_not_written_over(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    with pytest.raises(ValueError, match="holds a packed checkpoint already"):
        pack_checkpoint(source, tmp_path / "packed", NM(2, 4))


def test_a_damaged_byte_names_its_linear(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    file = tmp_path / "packed/packed-00001.safetensors"
    whole = file.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    start = 8 + int.from_bytes(whole[:8], "little")
    for name in ("model.layers.0.self_attn.q_proj.weight.positions", "model.layers.2.mlp.down_proj.weight.values"):
        place = start + header[name]["data_offsets"][0] + 3
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"{name.rpartition('.')[0]} in .* is damaged"):
            load_packed(tmp_path / "packed")
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cannot be read from"):
        load_packed(tmp_path / "packed")


def test_a_checksum_that_was_made_to_fit_does_not_hide_a_mask_that_does_not(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed")
    name = "model.layers.0.self_attn.q_proj.weight"
    parts = load_file(tmp_path / "packed/packed-00001.safetensors")
    parts[f"{name}.values"] = parts[f"{name}.values"][:-1].clone()
    save_file(parts, tmp_path / "packed/packed-00001.safetensors")
    index = json.loads((tmp_path / "packed/packing.json").read_text())
    forged = {part: parts[f"{name}.{part}"] for part in ("mask", "values")}
    index["tensors"][name]["sha256"] = digest(forged)
    (tmp_path / "packed/packing.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"{name} in .* is damaged: the mask keeps"):
        dict(read_packed(tmp_path / "packed"))


def test_another_version_is_refused(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    index = json.loads((tmp_path / "packed/packing.json").read_text())
    (tmp_path / "packed/packing.json").write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(ValueError, match="espalier-packed 2, espalier-packed 1 can be read"):
        load_packed(tmp_path / "packed")


def test_semi_structured_on_the_cpu_is_an_error(source, tmp_path):
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    with pytest.raises(ValueError, match="semi_structured: needs CUDA"):
        load_packed(tmp_path / "packed", semi_structured=True)
    wide = write(llama(hidden_size=64, intermediate_size=128).half(), NM(2, 4), tmp_path / "wide")
    with pytest.raises(ValueError, match="need CUDA"):
        to_semi_structured(load_model(wide))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_linears_become_semi_structured(tmp_path):
    wide = llama(hidden_size=128, intermediate_size=256).half()
    source = write(wide, NM(2, 4), tmp_path / "source")
    pack_checkpoint(source, tmp_path / "packed", NM(2, 4))
    model = load_packed(tmp_path / "packed", "cuda", semi_structured=True)
    for linear in linears_of(find_blocks(model)[1]).values():
        assert isinstance(linear.weight, torch.sparse.SparseSemiStructuredTensor)
    assert not isinstance(model.lm_head.weight, torch.sparse.SparseSemiStructuredTensor)
    assert count_sparse_linears(model) == len(linears_of(find_blocks(model)[1]))
    dense = load_packed(tmp_path / "packed", "cuda", semi_structured=False)
    ids = torch.arange(64, device="cuda")[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, dense(ids).logits, atol=1e-2, rtol=1e-2)

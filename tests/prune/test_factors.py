import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.calibrate.observers import InputGram
from tasks.model.anatomy import find_blocks, linears_of, prunable
from tasks.model.folder import weight_bytes
from tasks.model.load import load_config, load_model
from tasks.prune.factors import FactorFiles, SparseLowRank, merge, write_factors
from tasks.prune.pack import load_packed, pack_checkpoint, read_packed
from tasks.prune.packing import pattern_bytes
from tasks.prune.weight.apply import prune_blocks
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Unstructured
from tasks.prune.weight.recipe import Recipe
from tasks.prune.weight.svd import SVD, factorise
from tests.cases import llama

FOUR_BYTES = 4
ONE_OF_FOUR = {"patterns": '{"weight": "1:4"}'}


def decomposed_llama(folder, pattern, dtype=torch.float32):
    """A checkpoint whose linears are S + A B, one file of factors a block; returns what they were merged from."""
    model = llama(hidden_size=64, intermediate_size=128).to(dtype)
    prefix, blocks = find_blocks(model)
    everything = {}
    folder.mkdir()
    for index, block in enumerate(blocks):
        found = {}
        for name, linear in linears_of(block).items():
            stat = InputGram(linear.in_features, "cpu")
            common_T1 = torch.randn(200, 1, generator=torch.Generator().manual_seed(index))
            stat.update(
                common_T1 + 0.2 * torch.randn(200, linear.in_features, generator=torch.Generator().manual_seed(9))
            )
            parts = LowRank(rounds=3).decompose(linear.weight.detach(), stat, Magnitude(), pattern)
            linear.weight.data.copy_(parts.merged_OI())
            found[f"{prefix}.{index}.{name}.weight"] = parts
        write_factors(folder, found, index + 1)
        everything |= found
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return everything


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("pattern", "format"), [(NM(2, 4), "nm"), (Unstructured(0.5), "bitmask"), (NM(4, 8), "nm")])
def test_a_packed_model_holds_what_was_found_and_comes_back(pattern, format, dtype, tmp_path):
    everything = decomposed_llama(tmp_path / "source", pattern, dtype)
    pruned = [f"{linear}.weight" for linear in prunable(load_config(tmp_path / "source"))]
    assert set(pruned) == set(everything)
    factored = {name for name, parts in everything.items() if parts.rank}
    assert len(factored) > len(pruned) / 2
    summary = pack_checkpoint(tmp_path / "source", tmp_path / "packed", dict.fromkeys(pruned, pattern))
    stored = {row.name: row for row in summary.tensors}
    for name, parts in everything.items():
        assert stored[name].packed_bytes == parts.size_bytes
        assert stored[name].format.endswith("+lowrank") == (name in factored)
        if name in factored and pattern != NM(4, 8):
            assert stored[name].format == f"{format}+lowrank"
    source, packed = load_model(tmp_path / "source").state_dict(), load_packed(tmp_path / "packed").state_dict()
    assert source.keys() == packed.keys()
    assert all(torch.equal(source[name], packed[name]) for name in source)


def test_it_takes_no_more_bytes_than_the_pattern_alone(tmp_path):
    everything = decomposed_llama(tmp_path / "source", Unstructured(0.5))
    pack_checkpoint(tmp_path / "source", tmp_path / "packed", Unstructured(0.5))
    model = llama(hidden_size=64, intermediate_size=128)
    for linear in linears_of(find_blocks(model)[1]).values():
        linear.weight.data = Magnitude().prune(linear.weight.data, None, Unstructured(0.5))
    model.save_pretrained(tmp_path / "alone")
    pack_checkpoint(tmp_path / "alone", tmp_path / "packed_alone", Unstructured(0.5))
    names = 200 * len(everything)  # what two more tensors take in the header of a file
    assert weight_bytes(tmp_path / "packed") <= weight_bytes(tmp_path / "packed_alone") + names
    assert weight_bytes(tmp_path / "packed") < weight_bytes(tmp_path / "source")


def parts_of(sparse_OI, left_Or, right_rI, pattern=Unstructured(0.5)):  # noqa: B008 - frozen
    return SparseLowRank(sparse_OI=sparse_OI, left_Or=left_Or, right_rI=right_rI, pattern=pattern)


def test_factors_without_a_sparse_part_take_their_own_bytes_alone(tmp_path):
    weight_OI = torch.randn(48, 80, generator=torch.Generator().manual_seed(0))
    left_Or, right_rI = factorise(weight_OI, 5)
    parts = parts_of(torch.zeros(48, 80), left_Or, right_rI)
    assert parts.size_bytes == 5 * (48 + 80) * FOUR_BYTES
    write_factors(tmp_path, {"weight": parts})
    save_file({"weight": parts.merged_OI()}, tmp_path / "model.safetensors")
    (row,) = pack_checkpoint(tmp_path, tmp_path / "packed").tensors
    assert (row.format, row.packed_bytes) == ("empty+lowrank", parts.size_bytes)
    ((name, unpacked_OI),) = read_packed(tmp_path / "packed")
    assert name == "weight"
    assert torch.equal(unpacked_OI, merge(None, left_Or, right_rI))


def test_a_product_alone_is_stored_and_packed_without_a_sparse_part(tmp_path):
    model = llama(hidden_size=64, intermediate_size=128)
    recipe = Recipe(pruner=Magnitude(), pattern=NM(2, 4), low_rank=SVD(linears=("self_attn",)))
    linears = [linear for _, of_block in prune_blocks(model, recipe, None) for linear in of_block]
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    write_factors(tmp_path, {each.tensor: each.factors for each in linears if each.factors is not None})
    stored = load_file(tmp_path / "lowrank-00001.safetensors")
    assert {name.rpartition(".")[2] for name in stored} == {"left", "right"}
    rows = {row.name: row for row in pack_checkpoint(tmp_path, tmp_path / "packed").tensors}
    for each in linears:
        row, shape = rows[each.tensor], model.get_parameter(each.tensor).shape
        assert row.format == ("empty+lowrank" if "self_attn" in each.tensor else "bitmask")
        rank_bytes = sum(shape) * FOUR_BYTES
        budget = pattern_bytes(NM(2, 4), *shape, FOUR_BYTES)
        if "self_attn" in each.tensor:
            assert row.packed_bytes == each.row.rank * rank_bytes
            assert budget - rank_bytes < row.packed_bytes <= budget
    packed = load_packed(tmp_path / "packed").state_dict()
    assert all(torch.equal(tensor, packed[name]) for name, tensor in model.state_dict().items())


def test_the_sum_is_that_of_float64_rounded_once():
    left_Or, right_rI = torch.randn(6, 3).bfloat16(), torch.randn(3, 8).bfloat16()
    sparse_OI = torch.randn(6, 8).bfloat16()
    summed = [
        [sparse_OI[o, i].item() + sum(left_Or[o, k].item() * right_rI[k, i].item() for k in range(3)) for i in range(8)]
        for o in range(6)
    ]
    merged_OI = merge(sparse_OI, left_Or, right_rI)
    assert torch.equal(merged_OI, torch.tensor(summed, dtype=torch.float64).bfloat16())
    assert torch.equal(merge(sparse_OI, left_Or[:, :0], right_rI[:0]), sparse_OI)


@pytest.fixture
def source(tmp_path):
    """One factored weight in a checkpoint of its own."""
    weight_OI = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    sparse_OI = Magnitude().prune(weight_OI, None, NM(1, 4))
    parts = parts_of(sparse_OI, *factorise(weight_OI - sparse_OI, 2), NM(1, 4))
    save_file({"weight": parts.merged_OI(), "bias": torch.zeros(16)}, tmp_path / "model.safetensors")
    write_factors(tmp_path, {"weight": parts})
    return tmp_path


def rewrite(file, change, metadata):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata)


def test_the_same_factors_give_the_same_bytes(tmp_path):
    def factors_of(seed):
        weight_OI = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))
        sparse_OI = Magnitude().prune(weight_OI, None, NM(1, 4))
        return parts_of(sparse_OI, *factorise(weight_OI - sparse_OI, 2), NM(1, 4))

    files = set()
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        write_factors(folder, {f"block.{index}.weight": factors_of(index) for index in range(8)})
        files.add((folder / "lowrank-00001.safetensors").read_bytes())
    assert len(files) == 1


def test_what_does_not_fit_the_checkpoint_is_named(source):
    file = source / "lowrank-00001.safetensors"
    with pytest.raises(ValueError, match=r"lowrank-00001.safetensors holds weight, which the checkpoint has not"):
        FactorFiles(source, {"bias"})
    rewrite(source / "model.safetensors", lambda tensors: tensors["weight"][3, 4].add_(0.01), None)
    with pytest.raises(ValueError, match="factors: what is stored of weight does not add up"):
        pack_checkpoint(source, source / "packed")
    rewrite(file, lambda tensors: tensors.update({"weight.right": tensors["weight.right"][:, :30].clone()}), {})
    assert "weight" not in FactorFiles(source, {"weight"})  # without a pattern nobody speaks of it
    rewrite(file, lambda tensors: tensors.pop("weight.left"), ONE_OF_FOUR)
    with pytest.raises(ValueError, match=r"factors: weight cannot be read from .*lowrank-00001"):
        FactorFiles(source, {"weight"}).read("weight")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"lowrank-00001.safetensors is damaged"):
        FactorFiles(source, {"weight"})


def test_a_sparse_part_that_is_not_of_its_pattern_is_named(source):
    def move(tensors):
        tensors["weight.sparse"][3] = 0
        tensors["weight.sparse"][4, 8:12] = torch.tensor([1.0, 0.0, 1.0, 0.0])

    rewrite(source / "lowrank-00001.safetensors", move, ONE_OF_FOUR)
    stored = FactorFiles(source, {"weight"}).read("weight")
    rewrite(source / "model.safetensors", lambda tensors: tensors.update({"weight": stored.merged_OI()}), None)
    with pytest.raises(ValueError, match=r"1:4 given, 2 of 4 kept at row 4, input 8 \(weight\)"):
        pack_checkpoint(source, source / "packed")


@pytest.mark.parametrize("part", ["left", "right", "values", "positions"])
def test_a_damaged_part_names_its_tensor(source, part):
    pack_checkpoint(source, source / "packed")
    file = source / "packed/packed-00001.safetensors"
    rewrite(file, lambda tensors: tensors[f"weight.{part}"].view(torch.uint8).bitwise_xor_(1), None)
    with pytest.raises(ValueError, match=r"weight in .*packed-00001.safetensors is damaged"):
        dict(read_packed(source / "packed"))


def test_another_rank_than_the_index_says_is_refused(source):
    pack_checkpoint(source, source / "packed")
    file = source / "packed/packing.json"
    index = json.loads(file.read_text())
    assert index["tensors"]["weight"]["rank"] == 2
    assert "rank" not in index["tensors"]["bias"]
    index["tensors"]["weight"]["rank"] = 3
    file.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weight in .* is damaged: factors of \[16, 2\] and \[2, 32\] .* rank is 3"):
        dict(read_packed(source / "packed"))


def test_nothing_is_written_where_there_are_no_factors(tmp_path):
    write_factors(tmp_path, {"weight": parts_of(torch.ones(4, 4), torch.ones(4, 0), torch.ones(0, 4))})
    assert not list(tmp_path.iterdir())

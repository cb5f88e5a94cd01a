import pytest
import torch

from tasks.evaluate import size
from tasks.evaluate.size import (
    cache_bytes,
    count_parameters,
    count_sparse_linears,
    counted_sparsity,
    memory_bytes,
    weight_bytes,
)
from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.cost import sizes_of
from tasks.model.mapped import mapped_model, release
from tasks.prune.structure.depth import slice_blocks
from tests.cases import FAMILIES, llama
from tests.evaluate.sparse_weight import sparse_weight
from tests.pages import mapped_pages, needs_smaps


def test_parameters_and_bytes_count_what_is_tied_once():
    model, tied = llama(), llama(tie_word_embeddings=True)
    embedding = model.model.embed_tokens.weight.numel()
    assert count_parameters(model) - count_parameters(tied) == embedding
    assert memory_bytes(model) - memory_bytes(tied) == 4 * embedding
    buffers = sum(buffer.numel() * buffer.itemsize for buffer in model.buffers())
    assert buffers > 0
    assert memory_bytes(model) == 4 * count_parameters(model) + buffers
    assert memory_bytes(model.half()) < 0.6 * memory_bytes(llama())


def test_the_bytes_on_disk_are_those_of_the_weights(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path)
    assert weight_bytes(tmp_path) == (tmp_path / "model.safetensors").stat().st_size
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    tensors = sum(parameter.numel() * 4 for parameter in model.parameters())
    assert tensors < weight_bytes(tmp_path / "shards") < 1.2 * tensors


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_has_the_bytes_of_the_cost_model(family):
    model = FAMILIES[family]()
    if family == "gpt_neox":  # its heads are fused: one KV head of 8 for each of 4 queries, in 3 blocks
        assert cache_bytes(model) == 3 * 2 * 4 * 8 * 1000 * 4
        return
    frame, widths = sizes_of(model)
    for tokens in (5, 1000):
        assert cache_bytes(model, tokens) == frame.cost(widths, tokens=tokens).kv_bytes


def test_a_block_without_attention_has_no_cache():
    model = llama()
    whole = cache_bytes(model)
    with slice_blocks(model, attention=[1]):
        assert cache_bytes(model) == whole * 2 / 3


@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_are_counted_in_the_linears_of_the_blocks_alone(family):
    model = FAMILIES[family]()
    assert counted_sparsity(model) == 0
    model.get_input_embeddings().weight.data.zero_()
    assert counted_sparsity(model) == 0
    linears = linears_of(find_blocks(model)[1])
    name, linear = next(iter(linears.items()))
    linear.weight.data[0] = 0
    total = sum(linear.weight.numel() for linear in linears.values())
    assert counted_sparsity(model) == linear.in_features / total, name


@needs_smaps
def test_zeros_of_a_mapped_model_are_counted_block_by_block(tmp_path, monkeypatch):
    model = llama(num_hidden_layers=12, hidden_size=256, intermediate_size=1024)
    for block in model.model.layers:
        block.mlp.up_proj.weight.data[:, ::4] = 0
    model.save_pretrained(tmp_path)
    block_bytes = sum(parameter.nbytes for parameter in model.model.layers[0].parameters())
    in_memory = []

    def watched(parameters):
        in_memory.append(mapped_pages())
        release(parameters)

    monkeypatch.setattr(size, "release", watched)
    with mapped_model(tmp_path) as mapped:
        before = mapped_pages()
        found = counted_sparsity(mapped)
        assert memory_bytes(mapped) == memory_bytes(model)
    assert len(in_memory) == 12
    assert block_bytes / 2 < max(in_memory) - before < 2 * block_bytes
    assert found == counted_sparsity(model)


def test_a_tensor_made_of_others_holds_what_they_hold():
    model = torch.nn.Module()
    nested = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(5)], layout=torch.jagged)
    model.register_buffer("nested", nested)
    assert memory_bytes(model) == 8 * 4 + 3 * 8  # the values, and the offsets of two rows


def test_a_linear_is_sparse_where_its_weight_is_and_not_where_it_only_holds_zeros():
    model = llama()
    block = model.model.layers[0]
    block.mlp.up_proj.weight.data[:, ::2] = 0
    assert count_sparse_linears(model) == 0
    for linear in (block.mlp.up_proj, block.self_attn.o_proj):
        linear.weight = sparse_weight(32, 64)
    model.model.norm.weight = sparse_weight(32, 64)  # no linear
    assert count_sparse_linears(model) == 2

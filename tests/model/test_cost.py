import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, FalconConfig, FalconForCausalLM, GlmConfig, GlmForCausalLM

from tasks.model.anatomy import dissect
from tasks.model.cost import Cost, Part, Widths, sizes_of
from tasks.model.heads import heads_of
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.width import slice_units
from tests.cases import (
    FAMILIES,
    FFN,
    SLIDING,
    VOCABULARY,
    WIDTH,
    batches,
    gemma2,
    gpt_neox,
    llama,
    mistral,
    opt,
    qwen2,
    qwen3,
)

TOKENS, BATCH = 20, 3


def glm():
    """Head groups, but no channels: its gate and up are one linear."""
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": 3, "head_dim": 8, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return GlmForCausalLM(GlmConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **shape, **heads)).eval()


def falcon():
    """Channels, but no head groups: queries, and the one key and value of all, are one linear."""
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "ffn_hidden_size": FFN, "num_hidden_layers": 3, "num_attention_heads": 4}
    return FalconForCausalLM(FalconConfig(vocab_size=VOCABULARY, multi_query=True, bos_token_id=1, **shape)).eval()


MAKERS = FAMILIES | {"glm": glm, "falcon": falcon}
BOTH = [family for family in FAMILIES if family != "gpt_neox"]  # that have head groups and channels


def numel(model):
    return sum(parameter.numel() for parameter in model.parameters())


def cut(model):
    """Different widths in every block, one without attention, one without FFN; of four blocks one goes whole.

    Of units that a family does not have, nothing.
    """
    blocks, kinds = model.config.num_hidden_layers, units_of(model)[0].kinds
    kept = {
        0: {"head_groups": torch.tensor([1]), "channels": torch.arange(5)},
        1: {"channels": torch.arange(7, 40)},
    }
    there = {block: {kind: of_kind[kind] for kind in of_kind if kind in kinds} for block, of_kind in kept.items()}
    slice_units(model, there)
    ffn = [blocks - 1] if "channels" in kinds else []
    slice_blocks(model, attention=[1], ffn=ffn, blocks=[2] if blocks > 3 else [])
    return model


@torch.no_grad()
def cache_bytes(model):
    cache = DynamicCache(config=model.config)
    model(batches((BATCH, TOKENS))[0], past_key_values=cache, use_cache=True)
    filled = [layer for layer in cache.layers if layer.is_initialized]
    return sum(each.numel() * each.itemsize for layer in filled for each in (layer.keys, layer.values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("family", MAKERS)
def test_parameters_and_bytes_are_those_of_the_model_and_its_cache(family, is_cut, dtype):
    model = MAKERS[family]().to(dtype)
    model = cut(model) if is_cut else model
    frame, widths = sizes_of(model)
    cost = frame.cost(widths, tokens=TOKENS, batch=BATCH)
    assert cost.parameters == numel(model)
    assert cost.weight_bytes == numel(model) * dtype.itemsize
    assert cost.kv_bytes == cache_bytes(model)


@pytest.mark.parametrize("family", BOTH)
def test_a_cut_is_priced_before_it_is_made(family):
    model = FAMILIES[family]()
    frame, widths = sizes_of(model)
    planned = [
        Widths(query_heads=widths[0].query_heads // widths[0].kv_heads, kv_heads=1, channels=9),
        Widths(query_heads=0, kv_heads=0, channels=FFN),
        *widths[2:],
    ]
    predicted = frame.cost(planned, tokens=1).parameters
    slice_units(model, {0: {"head_groups": torch.tensor([0]), "channels": torch.arange(9)}})
    slice_blocks(model, attention=[1])
    assert predicted == numel(model)
    assert sizes_of(model)[0] == frame


def test_the_formulas_by_hand():
    model = llama(num_key_value_heads=2, head_dim=4)
    d, h, n_q, n_kv, m, t = WIDTH, 4, 4, 2, FFN, 100
    frame, widths = sizes_of(model)
    linears = d * h * (2 * n_q + 2 * n_kv) + 3 * d * m
    block = frame.block_cost(widths[0], tokens=t, batch=5)
    assert block == Cost(
        parameters=linears + 2 * d,
        prefill_macs=5 * t * (linears + n_q * h * (t + 1)),
        decode_macs=5 * (linears + 2 * n_q * h * t),
        weight_bytes=4 * (linears + 2 * d),
        kv_bytes=2 * n_kv * h * t * 5 * 4,
    )
    head = d * VOCABULARY
    assert frame.outside_cost(tokens=t).decode_flops == 2 * head
    assert frame.outside_cost(tokens=t).prefill_flops == 2 * t * head
    assert frame.cost(widths, tokens=t).parameters == 3 * block.parameters + 2 * head + d


def test_biases_and_norms_over_a_head_by_hand():
    d, h = WIDTH, 8
    frame = sizes_of(opt())[0]
    assert (frame.query_head.biases, frame.kv_head.biases, frame.channel.biases) == (h, 2 * h, 1)
    assert (frame.attention, frame.ffn, frame.block) == (Part(biases=d), Part(biases=d), Part(biases=4 * d))
    frame = sizes_of(qwen2())[0]
    assert (frame.query_head.biases, frame.kv_head.biases, frame.channel.biases) == (h, 2 * h, 0)
    assert (frame.attention, frame.ffn, frame.block) == (Part(), Part(), Part(biases=2 * d))
    assert sizes_of(qwen3())[0].attention == Part(biases=2 * h)
    assert sizes_of(gemma2())[0].block == Part(biases=4 * d)


def test_what_is_in_fused_linears_costs_as_a_whole_by_hand():
    d, h = WIDTH, 8
    frame, widths = sizes_of(gpt_neox())  # q, k and v are one linear
    assert {*widths} == {Widths(query_heads=4, kv_heads=4, channels=FFN)}
    assert (frame.query_head, frame.kv_head) == (Part(), Part())
    assert (frame.attention, frame.block) == (Part(weights=4 * d * d, biases=4 * d), Part(biases=4 * d))
    assert (frame.channel, frame.ffn) == (Part(weights=2 * d, biases=1), Part(biases=d))
    frame, widths = sizes_of(falcon())  # with a single head of k and v
    assert {*widths} == {Widths(query_heads=4, kv_heads=1, channels=FFN)}
    assert frame.attention == Part(weights=d * (d + 2 * h) + d * d)
    frame, widths = sizes_of(glm())  # gate and up are
    assert {*widths} == {Widths(query_heads=4, kv_heads=2, channels=0)}
    assert (frame.channel, frame.ffn, frame.block) == (Part(), Part(), Part(weights=3 * d * FFN, biases=2 * d))


def test_tied_embeddings_count_once_but_multiply():
    tied, apart = sizes_of(llama(tie_word_embeddings=True))[0], sizes_of(llama())[0]
    assert apart.outside - tied.outside == WIDTH * VOCABULARY
    assert apart.outside_macs == tied.outside_macs == WIDTH * VOCABULARY


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("make", [llama, opt, gpt_neox])
def test_multiplications_are_those_that_run(make, is_cut):
    model = make(attn_implementation="eager")
    model = cut(model) if is_cut else model
    frame, widths = sizes_of(model)
    ids = batches((BATCH, TOKENS))[0]
    cost = frame.cost(widths, tokens=TOKENS, batch=BATCH)
    heads = sum(each.query_heads for each in widths)
    above_diagonal = BATCH * 2 * heads * frame.head_dim * TOKENS * (TOKENS - 1) // 2  # eager attention multiplies these
    assert counted_macs(model, lambda: model(ids)) == cost.prefill_macs + above_diagonal
    with torch.no_grad():
        cache = model(ids[:, :-1], use_cache=True).past_key_values
    last = ids[:, -1:]
    assert counted_macs(model, lambda: model(last, past_key_values=cache, use_cache=True)) == cost.decode_macs


def counted_macs(model, run):
    """As torch counts them, without the rotary embedding, whose angles are made by a product."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    rotary = [flops for name, flops in counter.get_flop_counts().items() if name.endswith("rotary_emb")]
    return (counter.get_total_flops() - sum(sum(each.values()) for each in rotary)) // 2


def test_a_window_bounds_the_keys_and_the_cache():
    frame, widths = sizes_of(mistral())
    assert {each.window for each in widths} == {SLIDING}
    assert [each.window for each in sizes_of(gemma2())[1]] == [SLIDING, None] * 2
    wide = Widths(query_heads=4, kv_heads=2, channels=FFN)
    for tokens in (1, SLIDING - 1, SLIDING, 3 * SLIDING):
        cost, free = (frame.block_cost(each, tokens=tokens) for each in (widths[0], wide))
        keys = [min(position, SLIDING) for position in range(1, tokens + 1)]
        assert free.prefill_macs - cost.prefill_macs == 2 * 4 * 8 * (sum(range(1, tokens + 1)) - sum(keys))
        assert free.decode_macs - cost.decode_macs == 2 * 4 * 8 * (tokens - keys[-1])
        assert cost.kv_bytes == 2 * 2 * 8 * min(tokens, SLIDING - 1) * 4


def test_what_one_unit_costs():
    frame, widths = sizes_of(llama())
    (full,) = {*widths}
    one_less = Widths(query_heads=4, kv_heads=2, channels=FFN - 1)
    saved = frame.block_cost(full, tokens=9) - frame.block_cost(one_less, tokens=9)
    macs = 3 * WIDTH
    assert saved == Cost(parameters=macs, prefill_macs=9 * macs, decode_macs=macs, weight_bytes=4 * macs, kv_bytes=0)


def test_what_cannot_be_priced():
    model = gpt_neox()
    anatomy, units = dissect(model), units_of(model)
    model.gpt_neox.layers[2].attention.query_key_value = torch.nn.Linear(WIDTH, WIDTH + 8)
    with pytest.raises(
        ValueError, match=r"linears \(40, 32\), \(32, 32\) of attention in block 2 do not tell its heads"
    ):
        heads_of(anatomy, units[2], head_dim=8)
    model = llama()
    model.model.layers[1].extra = torch.nn.LayerNorm(WIDTH)
    with pytest.raises(ValueError, match="block 1 has 9344 parameters, its units and norms would be 9280"):
        sizes_of(model)
    model = llama()
    model.model.norm.to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"torch.bfloat16, torch.float32 among its parameters"):
        sizes_of(model)


def test_bad_sizes():
    frame, widths = sizes_of(llama())
    with pytest.raises(ValueError, match="tokens: 0 given"):
        frame.cost(widths, tokens=0)
    with pytest.raises(ValueError, match="batch: 0 given"):
        frame.block_cost(widths[0], tokens=1, batch=0)
    with pytest.raises(ValueError, match="3 query heads for 2 KV heads"):
        Widths(query_heads=3, kv_heads=2, channels=1)
    with pytest.raises(ValueError, match="0 query heads for 2 KV heads"):
        Widths(query_heads=0, kv_heads=2, channels=1)
    with pytest.raises(ValueError, match="valid is 0 or more"):
        Widths(query_heads=2, kv_heads=2, channels=-1)

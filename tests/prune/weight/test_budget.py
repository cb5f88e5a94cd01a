import pytest
import torch
from torch import nn

from tasks.model.anatomy import dissect
from tasks.prune.allocation import Allocation
from tasks.prune.allocators import block_sizes, owl_sparsities
from tasks.prune.weight.budget import attention_linears, exact_sparsity, patterns_for
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tests.cases import FAMILIES, gpt_neox, llama, opt

RISING = (0.4, 0.5, 0.6)


def blocks_of(model):
    anatomy = dissect(model)
    return [anatomy.linears(index) for index in range(len(anatomy.blocks))]


def zeros(patterns, blocks):
    """Really counted, block by block and linear by linear."""
    generator = torch.Generator().manual_seed(0)

    def count(pattern, linear):
        score_OI = torch.rand(linear.weight.shape, generator=generator)
        return int((~pattern.keep(score_OI)).sum())

    return [
        {name: count(patterns[block][name], linear) for name, linear in linears.items()}
        for block, linears in enumerate(blocks)
    ]


def total(counts):
    return sum(sum(linears.values()) for linears in counts)


@pytest.mark.parametrize("size", range(1, 201))
def test_the_float_says_exactly_the_number(size):
    for dropped in range(size):
        sparsity = exact_sparsity(dropped, size)
        assert int(size * sparsity) == dropped
        assert sparsity == pytest.approx(dropped / size, rel=1e-15)


def test_the_float_says_exactly_the_number_for_whole_matrices():
    for size in (14336 * 4096, 28672 * 8192 + 1):
        for dropped in range(0, size, size // 997):
            assert int(size * exact_sparsity(dropped, size)) == dropped
    assert int(100 * (29 / 100)) == 28  # which is why
    assert Unstructured(exact_sparsity(29, 100)).keep(torch.rand(1, 100)).sum() == 71


@pytest.mark.parametrize("within", ["row", "matrix"])
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_the_total_is_that_of_the_pattern_and_every_block_gets_its_share(make, within):
    blocks = blocks_of(make())
    generator = torch.Generator().manual_seed(len(blocks))
    moves = torch.rand(len(blocks), generator=generator, dtype=torch.float64)
    moves = 0.2 * (moves - moves.mean())
    pattern = Unstructured(0.55, within)
    allocation = Allocation(sparsities=tuple((0.55 + moves).tolist()))
    counts = zeros(patterns_for(allocation, pattern, blocks), blocks)
    assert total(counts) == total(zeros([dict.fromkeys(linears, pattern) for linears in blocks], blocks))
    for share, linears, dropped in zip(allocation.sparsities, blocks, counts, strict=True):
        for name, linear in linears.items():
            of, unit = linear.weight.numel(), linear.out_features if within == "row" else 1
            assert abs(dropped[name] - share * of) < 2 * unit  # one for rounding, one for int() in the pattern


@pytest.mark.parametrize(
    ("width", "keys", "ffn", "count"),
    [(2048, 512, 8192, 16), (896, 128, 4864, 24), (4096, 4096, 11008, 32), (8192, 1024, 28672, 80)],
    ids=["Llama-3.2-1B", "Qwen2.5-0.5B", "Llama-2-7B", "Llama-3.1-70B"],
)
@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_rows_meet_the_total_to_the_weight_on_the_shapes_of_real_models(width, keys, ffn, count, sparsity):
    shapes = [(width, width), (width, keys), (width, keys), (width, width), (width, ffn), (width, ffn), (ffn, width)]
    blocks = [{str(i): nn.Linear(*shape, device="meta") for i, shape in enumerate(shapes)} for _ in range(count)]
    ratios = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    allocation = Allocation(sparsities=owl_sparsities(ratios, [1] * count, sparsity, 0.08))
    chosen = patterns_for(allocation, Unstructured(sparsity), blocks)
    dropped = sum(
        linear.out_features * int(linear.in_features * patterns[name].sparsity)
        for patterns, linears in zip(chosen, blocks, strict=True)
        for name, linear in linears.items()
    )
    assert dropped == count * sum(outputs * int(inputs * sparsity) for inputs, outputs in shapes)


def test_blocks_of_other_sizes_meet_the_total_too():
    shapes = [[(48, 30), (7, 48)], [(33, 64)], [(48, 30), (5, 11), (21, 64)]]
    blocks = [{str(i): nn.Linear(*shape) for i, shape in enumerate(block)} for block in shapes]
    sizes = [sum(i * o for i, o in block) for block in shapes]
    rest = 0.5 - (0.3 * sizes[0] + 0.5 * sizes[1]) / sum(sizes)
    allocation = Allocation(sparsities=(0.3, 0.5, rest * sum(sizes) / sizes[2]))
    for pattern in (Unstructured(0.5), Unstructured(0.5, "matrix")):
        uniform = total(zeros([dict.fromkeys(linears, pattern) for linears in blocks], blocks))
        counts = zeros(patterns_for(allocation, pattern, blocks), blocks)
        assert total(counts) == uniform
        assert sum(counts[0].values()) < 0.35 * sizes[0]


@pytest.mark.parametrize("pattern", [NM(4, 8), NM(2, 4), Unstructured(0.3), Unstructured(0.29, "matrix")], ids=str)
def test_the_patterns_own_sparsity_is_the_pattern_itself(pattern):
    blocks = blocks_of(llama())
    uniform = Allocation(sparsities=(pattern.sparsity,) * 3)
    assert patterns_for(uniform, pattern, blocks) == [dict.fromkeys(linears, pattern) for linears in blocks]


@pytest.mark.parametrize(
    ("pattern", "sparsities", "kept"),
    [
        (NM(4, 8), (0.375, 0.5, 0.625), [5, 4, 3]),
        (NM(4, 8), RISING, [5, 4, 3]),  # 4.8, 4, 3.2 of 8
        (NM(2, 4), (0.25, 0.5, 0.75), [3, 2, 1]),
        (NM(2, 4), (0.1, 0.5, 0.9), [3, 2, 1]),  # at least 1, at most 3
        (NM(8, 16), (0.45, 0.45, 0.6), [9, 9, 6]),  # 8.8, 8.8, 6.4
    ],
)
def test_nm_chooses_an_n_per_block_whose_mean_is_that_of_the_pattern(pattern, sparsities, kept):
    blocks = blocks_of(llama())
    patterns = patterns_for(Allocation(sparsities=sparsities), pattern, blocks)
    assert patterns == [dict.fromkeys(linears, NM(n, pattern.m)) for n, linears in zip(kept, blocks, strict=True)]
    assert total(zeros(patterns, blocks)) == sum(block_sizes(llama())) * (pattern.m - pattern.n) // pattern.m


def attention_in(model):
    return [attention_linears(block) for block in dissect(model).blocks]


def test_the_linears_of_the_attention_are_those_of_the_module_with_the_cache():
    projections = {"q_proj", "k_proj", "v_proj"}
    assert attention_in(llama())[1] == {f"self_attn.{name}" for name in (*projections, "o_proj")}
    assert attention_in(opt())[1] == {f"self_attn.{name}" for name in (*projections, "out_proj")}
    assert attention_in(gpt_neox())[1] == {"attention.query_key_value", "attention.dense"}


@pytest.mark.parametrize("within", ["row", "matrix"])
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_attention_and_ffn_apart_get_their_shares_and_the_total_is_that_of_the_pattern(make, within):
    model = make()
    blocks, attention = blocks_of(model), attention_in(model)
    pattern = Unstructured(0.5, within)
    sizes = [
        [
            sum(each.weight.numel() for name, each in linears.items() if (name in names) == half)
            for half in (True, False)
        ]
        for linears, names in zip(blocks, attention, strict=True)
    ]
    mine = [0.25 + 0.1 * (index % 2) for index in range(len(blocks))]  # of the attentions; FFNs make up for it
    ffn = [0.5 + (0.5 - share) * of / rest for share, (of, rest) in zip(mine, sizes, strict=True)]
    allocation = Allocation(sparsities=tuple(mine), ffn=tuple(ffn))
    patterns = patterns_for(allocation, pattern, blocks, attention)
    assert [[*each] for each in patterns] == [[*each] for each in blocks]
    counts = zeros(patterns, blocks)
    assert total(counts) == total(zeros([dict.fromkeys(linears, pattern) for linears in blocks], blocks))
    for index, linears in enumerate(blocks):
        for name, linear in linears.items():
            share = mine[index] if name in attention[index] else ffn[index]
            unit = linear.out_features if within == "row" else 1
            assert abs(counts[index][name] - share * linear.weight.numel()) < 2 * unit


def test_nm_has_an_n_for_each_half_and_may_leave_one_whole():
    model = llama()  # an attention of 3,072 weights, an FFN of 6,144: two units for one
    blocks, attention = blocks_of(model), attention_in(model)
    allocation = Allocation(sparsities=(0.0, 0.75, 0.25), ffn=(0.75, 0.5, 0.5))
    patterns = patterns_for(allocation, NM(2, 4), blocks, attention)
    kept = [{of_half["self_attn.o_proj"].n: of_half["mlp.up_proj"].n} for of_half in patterns]
    assert kept == [{4: 1}, {1: 2}, {3: 2}]
    assert total(zeros(patterns, blocks)) == sum(block_sizes(model)) // 2


def test_halves_need_to_be_told_apart():
    halves = Allocation(sparsities=RISING, ffn=RISING[::-1])
    with pytest.raises(ValueError, match="attention and FFN apart, but nobody says which linears"):
        patterns_for(halves, Unstructured(0.5), blocks_of(llama()))
    with pytest.raises(ValueError, match=r"^allocation: 3 attentions and 2 FFNs given, valid is one of each"):
        Allocation(sparsities=RISING, ffn=(0.4, 0.6))
    with pytest.raises(ValueError, match=r"^allocation: 1 given for block 1, valid is 0 <= sparsity < 1$"):
        Allocation(sparsities=RISING, ffn=(0.4, 1, 0.6))


def test_what_does_not_fit_the_pattern_is_told():
    class Stripes(Pattern):
        sparsity = 0.4

        def __str__(self):
            return "stripes"

        def select(self, score_OI):
            return score_OI > 0

    blocks = blocks_of(llama())
    for pattern, sparsities, message in [
        (NM(2, 4), RISING, r"^allocation: its blocks differ by too little for 2:4, of which a step is 0.25$"),
        (Unstructured(0.5), (0.4, 0.6), r"^allocation: 2 blocks given, the model has 3$"),
        (Unstructured(0.5), (0.4, 0.6, 0.6), r"^allocation: its blocks drop 0.533333 of all .* 50% drops 0.5; valid"),
        (Unstructured(0.5, "matrix"), (0.4, 0.5, 0.6003), r"drop 0.5001 of all weights, 50%@matrix drops 0.5; valid"),
        (NM(4, 8), (0.4, 0.6, 0.7), r"^allocation: its blocks drop 0.566667 of all weights, 4:8 drops 0.5; valid"),
        (Stripes(), RISING, r"^pattern: stripes given, an allocation needs n:m or a percentage$"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            patterns_for(Allocation(sparsities=sparsities), pattern, blocks)
        assert "\n" not in str(error.value)

import pytest
import torch
from torch import nn

from tasks.model.anatomy import dissect
from tasks.model.units import KINDS, Units, head_dim_of, units_in, units_of
from tests.cases import BLOCKS, FAMILIES, FFN, WIDTH, gemma, gpt_neox, llama, opt

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GROUPS = Units(
    kind="head_groups",
    count=3,
    rows_each={"q": 4, "k": 2, "v": 2},
    reader="attention.o",
    columns_each=4,
)
QUERIES = Units(kind="query_heads", count=6, rows_each={"q": 2}, reader="attention.o", columns_each=2, parts=3)


def indices(*kept: int) -> torch.Tensor:
    return torch.tensor(kept, dtype=torch.int64)


@pytest.mark.parametrize("family", CUTTABLE)
def test_every_family_has_head_groups_and_channels(family):
    is_opt = family.startswith("opt")
    for index, block in enumerate(units_of(FAMILIES[family]())):
        q, k, v = PROJECTIONS
        groups, queries = (4, 1) if is_opt else (2, 2)
        assert (block.block, block.head_groups.count) == (index, groups)
        assert block.head_groups.rows_each == {q: 8 * queries, k: 8, v: 8}
        assert block.head_groups.columns_each == 8 * queries
        assert block.channels.count == FFN
        if is_opt:
            assert (block.head_groups.reader, block.channels.reader) == ("self_attn.out_proj", "fc2")
            assert (block.head_groups.module, block.channels.module) == ("self_attn", "")
            assert block.channels.rows_each == {"fc1": 1}
        else:
            assert (block.head_groups.reader, block.channels.reader) == ("self_attn.o_proj", "mlp.down_proj")
            assert (block.head_groups.module, block.channels.module) == ("self_attn", "mlp")
            assert block.channels.rows_each == {"mlp.gate_proj": 1, "mlp.up_proj": 1}


@pytest.mark.parametrize("family", CUTTABLE)
def test_the_units_of_a_kind_make_up_its_linears(family):
    model = FAMILIES[family]()
    anatomy = dissect(model)
    for block in units_in(anatomy, model.config):
        linears = anatomy.linears(block.block)
        for units in block.kinds.values():
            assert units.count * units.columns_each == linears[units.reader].in_features
            for name, each in units.rows_each.items():
                assert units.count * each == linears[name].out_features


def test_single_query_heads_where_a_group_has_several():
    block = units_of(llama())[0]
    assert block.query_heads == Units(
        kind="query_heads",
        count=4,
        rows_each={"self_attn.q_proj": 8},
        reader="self_attn.o_proj",
        columns_each=8,
        parts=2,
    )
    assert list(block.kinds) == list(KINDS)
    with pytest.raises(
        ValueError, match="query_heads given, block 0 of this opt has head_groups, channels, attention, f"
    ):
        units_of(opt())[0].of("query_heads")


def test_one_key_and_value_head_for_all():
    block = units_of(llama(num_key_value_heads=1))[0]
    assert (block.head_groups.count, block.query_heads.count, block.query_heads.parts) == (1, 4, 1)


def test_a_head_may_be_wider_than_its_share_of_the_model():
    model = gemma(head_dim=16)
    assert head_dim_of(model.config) == 16 != WIDTH // model.config.num_attention_heads
    block = units_of(model)[0]
    assert block.head_groups.rows_each == dict(zip(PROJECTIONS, (32, 16, 16), strict=True))
    assert block.query_heads.rows_each == {PROJECTIONS[0]: 16}


def test_fused_attention_has_no_head_groups_and_says_what_there_is():
    blocks = units_of(gpt_neox())
    assert len(blocks) == BLOCKS
    assert list(blocks[1].kinds) == ["channels"]
    with pytest.raises(ValueError, match="head_groups given, block 1 of this gpt_neox has channels, attention, ffn"):
        blocks[1].of("head_groups")


def test_a_norm_over_all_heads_or_channels_binds_them():
    model = llama()
    model.model.layers[0].self_attn.q_norm = nn.LayerNorm(WIDTH)
    model.model.layers[1].mlp.norm = nn.LayerNorm(FFN)
    first, second, third = units_of(model)
    assert list(first.kinds) == ["channels"]
    assert list(second.kinds) == ["head_groups", "query_heads"]
    assert list(third.kinds) == list(KINDS)


def test_rows_and_columns_of_the_units_that_stay():
    rows = GROUPS.rows_of(indices(0, 2))
    assert {name: kept.tolist() for name, kept in rows.items()} == {
        "q": [0, 1, 2, 3, 8, 9, 10, 11],
        "k": [0, 1, 4, 5],
        "v": [0, 1, 4, 5],
    }
    assert GROUPS.columns_of(indices(1)).tolist() == [4, 5, 6, 7]
    assert GROUPS.removed(indices(0, 2)).tolist() == [1]
    assert GROUPS.removed(indices(0, 1, 2)).tolist() == []
    assert QUERIES.columns_of(indices(0, 3, 4)).tolist() == [0, 1, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (indices(), "one or more int64"),
        (indices(0, 1)[None], "one or more int64"),
        (torch.tensor([0.0]), "one or more int64"),
        (torch.tensor([True, False, True]), "one or more int64"),
        (indices(2, 0), r"\[2, 0\] given, valid are ascending"),
        (indices(1, 1), "ascending, different"),
        (indices(0, 3), "0 to 2"),
        (indices(-1, 0), "0 to 2"),
    ],
)
def test_bad_indices(kept, message):
    for ask in (GROUPS.check, GROUPS.rows_of, GROUPS.columns_of, GROUPS.removed):
        with pytest.raises(ValueError, match=message):
            ask(kept)


def test_every_group_keeps_as_many_query_heads():
    QUERIES.check(indices(1, 2, 5))
    with pytest.raises(ValueError, match="query_heads: 2, 0, 1 kept in its 3 groups"):
        QUERIES.check(indices(0, 1, 4))

"""What a cut will leave is known before it is made: the shapes of the model that is then exported, and of no other."""

from dataclasses import replace

import pytest
import torch

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.units import units_of
from tasks.prune.structure.cut import Cut, cut_model
from tasks.prune.structure.planned import planned
from tasks.prune.structure.width import slice_units
from tests.cases import batches, llama


def scores_of(model):
    draw = torch.Generator().manual_seed(0)
    return [
        {kind: torch.rand(units.count, generator=draw) for kind, units in of_block.kinds.items()}
        | {kind: torch.rand(1, generator=draw) for kind in ("blocks", "attention", "ffn")}
        for of_block in units_of(model)
    ]


def shapes_of(model):
    return [
        {name: tuple(each.weight.shape) for name, each in linears_of(block).items()} for block in find_blocks(model)[1]
    ]


CUTS = [
    Cut(budget=0.3, round_to=8),
    Cut(budget=0.2, kinds=("channels",), round_to=1),
    Cut(budget=0.3, kinds=("query_heads", "channels"), round_to=8, form="per_layer"),
    Cut(budget=0.34, kinds=("blocks",)),
    Cut(budget=0.3, kinds=("attention", "ffn")),
]


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: "+".join(cut.kinds))
def test_what_is_planned_has_the_shapes_of_what_is_cut(cut):
    model = llama()
    scores, given = scores_of(model), batches((4, 12), (4, 12))
    before = {name: (id(each), each.clone()) for name, each in model.named_parameters()}
    target = planned(model, scores, cut, given)
    assert {parameter.device.type for parameter in target.parameters()} == {"meta"}
    after = dict(model.named_parameters())
    assert {name: id(each) for name, each in after.items()} == {name: at for name, (at, _) in before.items()}
    assert all(torch.equal(after[name], values) for name, (_, values) in before.items())
    cut_model(model, scores, cut, given)
    assert shapes_of(target) == shapes_of(model)


def test_a_padded_plan_is_everywhere_as_wide_as_the_widest_block():
    model = llama()
    scores = scores_of(model)
    with slice_units(model, {0: {"channels": torch.arange(32)}}):
        scores[0]["channels"] = scores[0]["channels"][:32]
        cut = Cut(budget=0.2, kinds=("channels",), round_to=1, form="padded")
        widths = {block["mlp.down_proj"][1] for block in shapes_of(planned(model, scores, cut, []))}
        exact = planned(model, scores, replace(cut, form="per_layer"), [])
        assert widths == {max(block["mlp.down_proj"][1] for block in shapes_of(exact))}
        assert len({block["mlp.down_proj"][1] for block in shapes_of(exact)}) == 2

"""Which blocks can spare units: the rises against models that are really cut, their least sum against brute force."""

import itertools

import pytest
import torch
from torch import nn

from tasks.model.units import units_of
from tasks.prune.structure.rises import PROBES, least_rise, measure_rises
from tasks.prune.structure.width import slice_units
from tests.cases import FAMILIES, batches, gpt_neox, llama

WITH_HEADS = [family for family in FAMILIES if family != "gpt_neox"]


def random_scores(model):
    generator = torch.Generator().manual_seed(0)
    return [
        {kind: torch.rand(units.count, generator=generator) for kind, units in block.kinds.items()}
        for block in units_of(model)
    ]


@torch.no_grad()
def loss(model, ids):
    """Nats per token, by the definition, in float64."""
    logits_BTV = model(ids).logits[:, :-1].double()
    return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), ids[:, 1:].flatten()).item()


@pytest.mark.parametrize("family", WITH_HEADS)
def test_a_rise_is_that_of_a_model_of_which_one_block_is_cut(family):
    model, (ids,) = FAMILIES[family](), batches((3, 20))
    scores, dense = random_scores(model), loss(model, ids)
    rises = measure_rises(model, scores, "head_groups", [ids])
    assert loss(model, ids) == dense
    for block, rise in enumerate(rises):
        order = scores[block]["head_groups"].argsort()
        assert (len(rise), rise[0]) == (len(order), 0)
        for gone in range(1, len(order)):
            with slice_units(model, {block: {"head_groups": order[gone:].sort().values}}):
                assert rise[gone] == pytest.approx(loss(model, ids) - dense, abs=1e-5)


def test_of_many_units_some_numbers_are_measured_and_the_others_lie_between():
    model, (ids,) = llama(), batches((3, 20))
    scores, dense = random_scores(model), loss(model, ids)
    rise = measure_rises(model, scores, "channels", [ids])[1]
    order, probed = scores[1]["channels"].argsort(), [round(63 * place / PROBES) for place in range(1, PROBES + 1)]
    assert probed[-1] == 63
    for gone in probed:
        with slice_units(model, {1: {"channels": order[gone:].sort().values}}):
            assert rise[gone] == pytest.approx(loss(model, ids) - dense, abs=1e-5)
    low, high = probed[:2]
    assert rise[low + 1] == pytest.approx(rise[low] + (rise[high] - rise[low]) / (high - low))


def test_the_sum_of_the_rises_is_the_least_of_all_ways():
    generator = torch.Generator().manual_seed(0)
    rises = [[0.0, *torch.randn(count, generator=generator).double().tolist()] for count in (3, 1, 4, 2)]
    ways = list(itertools.product(*(range(len(rise)) for rise in rises)))
    for number in range(11):
        least = min(
            sum(rise[gone] for rise, gone in zip(rises, way, strict=True)) for way in ways if sum(way) == number
        )
        found = least_rise(rises, number)
        assert sum(found) == number
        assert sum(rise[gone] for rise, gone in zip(rises, found, strict=True)) == pytest.approx(least)


def test_of_equal_ways_the_later_blocks_lose_more():
    assert least_rise([[0.0, 1.0, 2.0]] * 3, 3) == [0, 1, 2]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="number: 5 given, valid is 0 to 4"):
        least_rise([[0.0, 1.0, 2.0]] * 2, 5)
    with pytest.raises(ValueError, match="batches: none given"):
        measure_rises(llama(), random_scores(llama()), "head_groups", [])
    with pytest.raises(ValueError, match=r"batches: torch.int64 of shape \(2, 1\) given, valid are ids"):
        measure_rises(llama(), random_scores(llama()), "head_groups", batches((2, 1)))
    with pytest.raises(ValueError, match="head_groups given, block 0 of this gpt_neox has channels"):
        measure_rises(gpt_neox(), random_scores(gpt_neox()), "head_groups", batches())

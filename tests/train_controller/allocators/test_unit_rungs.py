import copy
import random

import pytest
import torch

from tasks.model.cost import sizes_of
from tasks.prune.structure.budget import COSTS
from tasks.prune.structure.cut import Cut, cut_model
from tasks.train_controller.allocators.losses import window_losses
from tasks.train_controller.allocators.unit_rungs import left_in_blocks, unit_problem, unit_rungs
from tests.cases import batches, llama, opt, qwen3

FAMILIES = {"llama": llama, "qwen3": qwen3, "opt": opt}
IDS_WT = torch.cat(batches((4, 20), seed=3))


def cut(**changes):
    return Cut(**{"budget": 0.3, "round_to": 8, "repair": False, **changes})


def scores_of(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    full = sizes_of(model)[1]
    return [
        {
            "head_groups": torch.rand(has.kv_heads, generator=generator, dtype=torch.float64),
            "query_heads": torch.rand(has.query_heads, generator=generator, dtype=torch.float64),
            "channels": torch.rand(has.channels, generator=generator, dtype=torch.float64),
        }
        for has in full
    ]


def some_levels(problem, seed):
    wanted = [random.Random(seed * 100 + part).random() for part in range(len(problem.parts))]
    return problem.project(wanted)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_what_levels_save_is_what_the_cut_model_lacks(make, cost):
    """Of every cost, counted anew in the model that is left."""
    for seed in range(3):
        model = make()
        scores, asked = scores_of(model), cut(cost=cost)
        rungs = unit_rungs(model, scores, asked)
        levels = some_levels(rungs.problem, seed)
        assert rungs.problem.meets(levels)
        frame, before = sizes_of(model)
        left = left_in_blocks(rungs, levels, asked)
        cut_model(model, scores, Cut(**{**vars(asked), "left": left}), [])
        after = sizes_of(model)[1]
        for name, read in COSTS.items():
            gone = read(frame.cost(before, tokens=64)) - read(frame.cost(after, tokens=64))
            assert rungs.problem.saved(levels, name) == gone
        assert left == tuple((has.kv_heads, has.channels) for has in after)


@pytest.mark.parametrize("kinds", [("head_groups", "channels"), ("query_heads", "channels"), ("channels",)], ids=str)
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_the_masked_loss_is_that_of_the_cut_model(make, kinds):
    model = make()
    if make is opt and "query_heads" in kinds:
        pytest.skip("a query head of its groups is the group")
    scores, asked = scores_of(model), cut(kinds=kinds)
    rungs, whole = unit_rungs(model, scores, asked), copy.deepcopy(model.state_dict())
    dense = window_losses(model, IDS_WT)
    for seed in range(3):
        levels = some_levels(rungs.problem, seed)
        with rungs.applied(levels):
            masked = window_losses(model, IDS_WT)
        sliced = copy.deepcopy(model)
        cut_model(sliced, scores, Cut(**{**vars(asked), "left": left_in_blocks(rungs, levels, asked)}), [])
        assert masked == pytest.approx(window_losses(sliced, IDS_WT), abs=1e-5)
        assert masked != dense
        assert window_losses(model, IDS_WT) == dense
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())


def test_units_of_the_lowest_scores_go_first():
    model = llama()
    rungs = unit_rungs(model, scores_of(model), cut())
    channels = rungs.scores[1]["channels"]
    one, two = (rungs.kept((0, 0, 0, number, 0, 0))[1]["channels"].tolist() for number in (1, 2))
    assert len(one) == 64 - 8
    assert len(two) == 64 - 16
    assert set(two) < set(one)
    gone = set(range(64)) - set(two)
    assert channels[list(gone)].max() < channels[two].min()


def test_the_peaks_are_what_readers_get():
    problem = unit_problem(llama(), cut())
    assert problem.peaks == ((32, 16), (64, 8)) * 3
    assert problem.peak((1, 7) * 3) == 16
    assert problem.peak((0, 7) * 3) == 32


def test_channels_have_no_part_in_a_cache():
    problem = unit_problem(llama(), cut(cost="kv", budget=0.34))
    assert {part.kind for part in problem.parts} == {"attention"}
    assert sum(problem.project([1, 0, 0])) == 2  # of 6 head groups
    assert unit_problem(llama(), cut(cost="kv", budget=0.34, round_to=24)) == problem  # nor are they cut in any steps


def test_what_cannot_be_searched_is_told():
    for asked, message in [
        (cut(round_to=24), r"^round_to: 24 given, a search cuts 64 channels in equal steps: 4, 8, 16$"),
        (cut(kinds=("blocks",)), r"^allocator: whole blocks go or stay"),
        (cut(budget=0.95), r"^budget: 0.95 of the parameters given, valid is 0.0\d+ to 0.\d+$"),
        (cut(kinds=("channels",), round_to=64), r"^units: channels given, of which no block has more than one step"),
        (cut(cost="kv", budget=0.7), r"^budget: 0.7 of the kv given, valid is 0.1667 to 0.5$"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            unit_problem(llama(), asked)
        assert "\n" not in str(error.value)

"""An allocation of sparse inputs arrives: each block drops its share of the weights that are named, all of them one."""

import pytest

from tasks.evaluate.perplexity import perplexity
from tasks.model.anatomy import dissect
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.budget import patterns_of_blocks, share_of
from tasks.prune.activation.greedy import split_greedily
from tasks.prune.activation.measure import input_rows, reading
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.topk import TopK
from tasks.prune.allocation import Allocation
from tests.cases import FAMILIES, WINDOW, batches, llama
from tests.prune.activation.test_sparse_inputs import recipe

SHARES = (0.25, 0.5, 0.75)


def shares(how, model, allocation):
    anatomy = dissect(model)
    return [*map(share_of, how.groups(anatomy), patterns_of_blocks(how, anatomy, allocation))]


@pytest.mark.parametrize("pattern", ["50%", "2:4", "4:8"])
@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "qwen2"])
def test_each_block_drops_its_share_and_all_together_what_the_pattern_does(family, pattern):
    how = recipe(pattern, selection=TopK() if "%" in pattern else Magnitude())
    assert shares(how, FAMILIES[family](), Allocation(sparsities=SHARES)) == list(SHARES)


def test_of_some_modules_the_share_is_of_their_weights():
    how = recipe("50%", modules=("down_proj", "q_proj"))
    assert shares(how, llama(), Allocation(sparsities=SHARES)) == list(SHARES)


def test_what_is_asked_of_attention_and_ffn_apart_is_read():
    model, how = llama(), recipe("50%")
    allocation = Allocation(sparsities=(0.5, 0.5, 0.5), ffn=SHARES)
    patterns = patterns_of_blocks(how, dissect(model), allocation)
    with sparse_inputs(model, how, batches(), patterns) as installed, reading(model) as readings:
        perplexity(model, batches()[0].flatten(), WINDOW)
        for row in input_rows(installed, how, readings):
            asked = allocation.ffn[row.block] if row.linears.startswith("mlp") else 0.5
            assert row.dropped == row.asked == asked


def test_a_greedy_division_of_a_block_adds_up_to_its_share():
    model, how = llama(), recipe("50%")
    made = split_greedily(model, how, batches(), 0.1, SHARES)
    found = [*map(share_of, how.groups(dissect(model)), made)]
    assert found == pytest.approx(list(SHARES), abs=1e-5)


def test_shares_that_do_not_average_the_pattern_are_refused():
    with pytest.raises(ValueError, match=r"^allocation: its blocks drop 0\.4"):
        shares(recipe("50%"), llama(), Allocation(sparsities=(0.4, 0.4, 0.4)))

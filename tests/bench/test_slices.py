"""The benchmark of slices: which runs there are, what each measures, and that one which cannot be run says why."""

import math

import pytest
import torch

from bench.peers_environments import NotInstalled
from bench.slices import cells, measure, parse
from bench.slices_cuts import BOTH, CHANNELS, FFN, Cell, Espalier, block_parameters
from bench.slices_recover import recover_cut
from bench.slices_torch_pruning import HIDDEN_KEPT, MAGNITUDE, TAYLOR
from bench.texts import WINDOW, WINDOWS, Text
from tasks.evaluate.perplexity import perplexity
from tasks.model.load import load_model
from tests.cases import FFN as WIDTH_OF_FFN
from tests.cases import VOCABULARY, llama


@pytest.fixture
def folder(tmp_path):
    llama(max_position_embeddings=WINDOW).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def text():
    """Numbers that go up by one are easily learned."""
    ids = torch.arange(WINDOWS * WINDOW) % VOCABULARY
    return Text(calibration_T=ids, evaluation_T=ids[: 4 * WINDOW + 5])


def cell(**changes):
    usual = {"cut": FFN, "importance": "activation", "budget": 0.25, "repair": True, "recover_tokens": 0, "seed": 0}
    return Cell(**usual | changes)


def test_every_run_once_what_is_recovered_last_and_what_sees_no_windows_for_one_seed():
    words = ["--models", "builtin", "--importances", "weight_norm", "activation", "--budgets", "0.3"]
    words += ["--cuts", BOTH, CHANNELS, HIDDEN_KEPT]
    every = list(cells(parse(words)))
    assert len(set(every)) == len(every)
    tokens = [each.recover_tokens for each in every]
    assert tokens == sorted(tokens)
    cut = [(each.cut, each.importance, each.repair) for each in every if not each.recover_tokens]
    assert cut.count((CHANNELS, "weight_norm", False)) == cut.count((HIDDEN_KEPT, MAGNITUDE, False)) == 1
    assert (
        cut.count((BOTH, "weight_norm", False))
        == cut.count((BOTH, "weight_norm", True))
        == cut.count((HIDDEN_KEPT, TAYLOR, False))
        == 3
    )
    recovered = {(each.cut, each.importance, each.repair) for each in every if each.recover_tokens}
    assert recovered == {(CHANNELS, "activation", False), (CHANNELS, "activation", True), (HIDDEN_KEPT, TAYLOR, False)}


@pytest.mark.parametrize("repair", [False, True])
def test_a_run_counts_what_it_removed(folder, text, repair):
    dense = load_model(folder)
    found = measure(Espalier(folder, text).make, cell(repair=repair), folder, text, block_parameters(dense))
    gone = WIDTH_OF_FFN // 4 * 3 * 32  # channels, of which each has three rows or columns of the model's width
    assert found["removed"] == pytest.approx(3 * gone / block_parameters(dense))
    assert found["parameters"] == dense.num_parameters() - 3 * gone
    assert found["ppl"] == pytest.approx(math.exp(found["nll"]))
    assert found["seconds"] > 0


def test_a_budget_that_cannot_be_met_and_an_absent_peer_are_recorded(folder, text):
    too_much = measure(Espalier(folder, text).make, cell(cut=CHANNELS, budget=0.9), folder, text, 1)
    assert "budget" in too_much["not_run"]

    def absent(cell):
        raise NotInstalled("no index")

    assert measure(absent, cell(), folder, text, 1) == {"not_run": "no index"}


def test_recovery_learns_the_text_and_shows_it_again_where_it_is_short(folder, text):
    model = Espalier(folder, text).make(cell())
    before = perplexity(model, text.evaluation_T, WINDOW).nll
    recover_cut(model, folder, text, tokens=5 * 16 * WINDOW, seed=0)
    assert perplexity(model, text.evaluation_T, WINDOW).nll < before - 0.01

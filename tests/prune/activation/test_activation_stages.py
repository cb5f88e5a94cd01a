"""The stages of sparse inputs: the same bytes for the same words, a score of sparse tokens, products measured once."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tasks.evaluate.perplexity import perplexity
from tasks.handles import Checkpoint, Tokens
from tasks.model.folder import fingerprint
from tasks.model.load import load_model
from tasks.prune.activation import fast, task
from tasks.prune.activation.folder import load_sparse
from tasks.prune.activation.learn import Learn
from tasks.prune.activation.ls import LearnedScale
from tasks.prune.activation.results import NamedRecipe
from tasks.prune.activation.sparse_input import learned
from tasks.prune.activation.task import DECISIONS, evaluate_sparse, sparsify, time_sparse
from tasks.prune.activation.topk import TopK
from tasks.record import home
from tests.cases import VOCABULARY, WINDOW, llama
from tests.prune.activation.test_fast import never
from tests.prune.activation.test_sparse_inputs import recipe

WINDOWS = 6


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture
def model(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    return Checkpoint(hash=fingerprint(tmp_path / "model"), folder=str(tmp_path / "model"))


def tokens(*shape, seed):
    ids = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
    with home.store("tokens") as draft:
        save_file({"ids": ids}, draft.path / "tokens.safetensors")
    counts = {"documents": 1, "text_bytes": 4 * len(ids), "tokens": ids.numel(), "windows": WINDOWS, "window": WINDOW}
    of = {"source": "random", "dataset_hash": "", "scored_bytes": 4 * WINDOWS * (WINDOW - 1)}
    return Tokens(hash=draft.stored.hash, folder=draft.stored.folder, **of, **counts)


def named(*mitigations, **changes):
    how = recipe("50%", *(kind() for _, kind in mitigations), selection=TopK(), **changes)
    return NamedRecipe(recipe=how, names=("topk", *(name for name, _ in mitigations)))


def sparse(model, how, learning=None, greedy=None):
    calibration = tokens(WINDOWS, WINDOW, seed=1)
    division = {"allocation": None, "greedy": greedy, "learning": learning}
    return sparsify.fn(model=model, calibration=calibration, how=how, **division, device="cpu")


def scored(model, how, made):
    text = tokens(WINDOWS * WINDOW, seed=2)
    return evaluate_sparse.fn(model=model, sparse=made, how=how, tokens=text, device="cpu")


def test_the_same_words_give_the_same_bytes_and_what_was_learned_is_among_them(model):
    how = named(("ls", LearnedScale))
    made, again = (sparse(model, how, Learn(epochs=1, rate=0.01)) for _ in range(2))
    assert made.hash == again.hash
    assert [row.block for row in made.learned] == [0, 1, 2]
    network = load_model(home.root() / model.folder)
    load_sparse(network, model.hash, home.locate(made.folder), how.methods)
    changed = any(not torch.equal(each, torch.ones_like(each)) for each in learned(network).values())
    assert changed == made.learned[0].kept == (made.learned[0].loss_to < made.learned[0].loss_from)
    assert (sparse(model, how).hash == made.hash) != changed


@pytest.mark.parametrize("better", [True, False])
def test_what_was_learned_stays_only_where_the_models_loss_on_held_out_windows_fell(model, better, monkeypatch):
    """Both ways, whatever this random model does: the second score of two is a nat lower, or higher."""
    scores, real = [], perplexity

    def score(*given):
        scores.append(real(*given))
        return replace(scores[-1], nll=scores[0].nll + (len(scores) - 1) * (-1 if better else 1))

    monkeypatch.setattr(task, "perplexity", score)
    how = named(("ls", LearnedScale))
    made = sparse(model, how, Learn(epochs=1, rate=0.01))
    assert {(row.kept, row.loss_to - row.loss_from) for row in made.learned} == {(better, -1.0 if better else 1.0)}
    assert all(each.tokens == WINDOW - 1 for each in scores)  # one of six windows is held out
    network = load_model(home.root() / model.folder)
    load_sparse(network, model.hash, home.locate(made.folder), how.methods)
    assert better == any(not torch.equal(each, torch.ones_like(each)) for each in learned(network).values())


def test_the_score_is_of_sparse_tokens_whatever_is_said_of_prompts(model):
    made = {prefill: sparse(model, named(prefill=prefill)) for prefill in ("sparse", "dense")}
    rows = {prefill: scored(model, named(prefill=prefill), each) for prefill, each in made.items()}
    assert rows["sparse"].inputs == rows["dense"].inputs
    assert rows["sparse"].evaluation.nll == rows["dense"].evaluation.nll
    assert made["sparse"].hash != made["dense"].hash
    ids = torch.randint(VOCABULARY, (WINDOWS * WINDOW,), generator=torch.Generator().manual_seed(2))
    dense = perplexity(load_model(home.root() / model.folder), ids, WINDOW)
    assert abs(rows["dense"].evaluation.nll - dense.nll) > 1e-4
    assert rows["dense"].evaluation.sparsity == 0.5


def test_a_product_is_measured_once_on_a_machine_and_anew_on_another(model, monkeypatch):
    asked = []

    def measured(shape, cold_bytes):
        asked.append(shape)
        return never(shape, cold_bytes)

    monkeypatch.setattr(fast, "measure_shape", measured)
    how = named()
    made = sparse(model, how)
    timed = [
        time_sparse.fn(model=model, sparse=made, how=how, device="cpu", machine=machine)
        for machine in ("here", "here", "there")
    ]
    assert len(asked) == 2 * 4  # q/k/v, o, gate/up and down, on two machines
    assert timed[0].products == timed[1].products == timed[2].products
    assert not any(row.sparse for row in timed[0].products)
    assert {row.subject for row in timed[0].speeds} == {"dense", "pruned"}
    assert (home.root() / DECISIONS).is_file()

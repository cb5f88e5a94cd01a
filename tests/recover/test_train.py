"""The training loop: it learns, it ends where it should, and an interruption changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch.optim import AdamW, Muon
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.recover.train import Progress, Recipe, batch_of, make_optimizers, name_training, restore, train

RECIPE = Recipe(batch=4, matrix_rate=0.02, vector_rate=0.02)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=17,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def counting_NT() -> torch.Tensor:
    """Windows that count upwards modulo 17: the next token follows from the last."""
    return (torch.arange(64)[:, None] + torch.arange(16)) % 17


def weights(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_it_learns_to_count_and_stops_at_the_budget_of_tokens(counting_NT):
    model = small_llama()
    reports: list[Progress] = []
    done = train(model, counting_NT, RECIPE, tokens=64 * 100, report=reports.append, report_every=0)
    assert (done.step, done.tokens, done.fraction) == (100, 6400, 1.0)
    assert [progress.step for progress in reports] == list(range(1, 101))
    assert reports[0].loss == pytest.approx(2.83, abs=0.2)  # ln 17: it knows nothing
    assert reports[-1].loss < 0.2
    assert not model.training


def test_it_stops_at_the_budget_of_seconds(counting_NT):
    done = train(small_llama(), counting_NT, RECIPE, seconds=0.5)
    assert done.fraction == 1.0
    assert 0.5 <= done.seconds < 5
    assert done.tokens_per_s == pytest.approx(done.tokens / done.seconds)


def test_an_interruption_changes_nothing(counting_NT, tmp_path):
    def interrupt(progress: Progress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt

    whole, parts = small_llama(), small_llama()
    train(whole, counting_NT, RECIPE, tokens=64 * 20)
    path = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(parts, counting_NT, RECIPE, tokens=64 * 20, checkpoint=path, report=interrupt, report_every=0)
    parts = small_llama()
    done = train(parts, counting_NT, RECIPE, tokens=64 * 20, checkpoint=path)
    assert done.step == 20
    assert torch.equal(weights(whole), weights(parts))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_finished_training_is_not_trained_further(counting_NT, tmp_path):
    path = tmp_path / "state.safetensors"
    model = small_llama()
    done = train(model, counting_NT, RECIPE, tokens=64 * 3, checkpoint=path)
    before = weights(model)
    assert train(model, counting_NT, RECIPE, tokens=64 * 3, checkpoint=path) == done
    assert torch.equal(weights(model), before)
    training = name_training(model, counting_NT, RECIPE)
    assert restore(path, small_llama(), make_optimizers(model, RECIPE), training) == done


def test_a_training_goes_on_towards_the_budget_given_now(counting_NT, tmp_path):
    path = tmp_path / "state.safetensors"
    train(small_llama(), counting_NT, RECIPE, tokens=64 * 10, checkpoint=path)
    reports: list[Progress] = []
    options = {"checkpoint": path, "report": reports.append, "report_every": 0}
    done = train(small_llama(), counting_NT, RECIPE, tokens=64 * 20, **options)
    assert (done.step, done.fraction) == (20, 1.0)
    assert reports[0].fraction == pytest.approx(11 / 20)
    assert train(small_llama(), counting_NT, RECIPE, tokens=64 * 15, **options) == done


@pytest.mark.parametrize("other", ["text", "recipe", "model"])
def test_the_state_of_another_training_is_refused_in_one_line(counting_NT, tmp_path, other):
    path = tmp_path / "state.safetensors"
    train(small_llama(), counting_NT, RECIPE, tokens=64, checkpoint=path)
    model = small_llama()
    if other == "model":
        model.config.rms_norm_eps *= 2
    windows_NT = counting_NT.flip(0) if other == "text" else counting_NT
    recipe = replace(RECIPE, clip=2.0) if other == "recipe" else RECIPE
    with pytest.raises(ValueError, match=rf"^checkpoint: {path} is of another .*delete it to begin anew$"):
        train(model, windows_NT, recipe, tokens=128, checkpoint=path)


def test_the_rate_rises_stays_and_falls_to_zero():
    recipe = Recipe(warmup=0.1, decay=0.4)
    rates = [recipe.rate(spent) for spent in (0, 0.05, 0.1, 0.6, 0.8, 1.0)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.5, 0])


def test_windows_grow_where_the_recipe_says_so(counting_NT):
    shapes = []
    model = small_llama()
    model.register_forward_pre_hook(lambda _, __, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True)
    train(model, counting_NT, Recipe(batch=4, grow=True), tokens=64 * 8)
    assert shapes == [(16, 4)] * 4 + [(8, 8)] * 2 + [(4, 16)] * 2


def test_an_epoch_shows_every_window_once_in_a_new_order():
    recipe = Recipe(batch=4)
    first, second = (torch.cat([batch_of(step + 5 * epoch, 22, recipe) for step in range(5)]) for epoch in (0, 1))
    assert len(first.unique()) == len(second.unique()) == 20
    assert not torch.equal(first, second)


def test_matrices_take_muon_and_the_rest_adamw():
    model = small_llama()
    optimizers = make_optimizers(model, RECIPE)
    assert isinstance(optimizers["muon"], Muon)
    assert isinstance(optimizers["adamw"], AdamW)
    of = {name: optimizers[name].param_groups[0]["params"] for name in optimizers}
    assert len(of["muon"]) == 2 * 7
    assert len(of["adamw"]) == 1 + 2 * 2 + 1  # tied embedding, two norms a block, the last norm
    assert sum(p.numel() for group in of.values() for p in group) == model.num_parameters()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "budget: neither seconds nor tokens"),
        ({"recipe": Recipe(batch=65), "tokens": 1}, "windows: 64 given, fewer than one batch of 65"),
        ({"recipe": Recipe(batch=4, grow=True), "tokens": 1, "width": 15}, "grow: windows of 15 tokens"),
    ],
)
def test_mistakes_get_one_line(counting_NT, options, complaint):
    windows_NT = counting_NT[:, : options.pop("width", 16)]
    with pytest.raises(ValueError, match=f"^{complaint}"):
        train(small_llama(), windows_NT, options.pop("recipe", RECIPE), **options)

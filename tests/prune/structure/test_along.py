"""An optimizer's moments follow the units of their weights: training goes on as if the others had been masked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.data.mixture import Part, mix
from tasks.prune.structure.along import slice_along
from tasks.prune.structure.width import masked, slice_units
from tasks.recover.moments import moments_in
from tasks.recover.recover import recover
from tasks.recover.recovery import Recovery, Span
from tests.cases import FAMILIES, FFN, VOCABULARY, gemma, llama, opt, qwen2, qwen3

WINDOW, BATCH, BEFORE = 12, 4, 3
TRAINING = Recovery(tokens=(BEFORE + 1) * BATCH * WINDOW, batch=BATCH, rate=3e-3, warmup=0, decay=0)
TOLERANCE = 5e-5  # a bias of OPT's keys has a gradient of rounding alone, and AdamW makes much of it
FIRST, NEXT = Span(first=0, last=BEFORE), Span(first=BEFORE, last=BEFORE + 1)


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


CUTS = {
    "head_groups": {0: {"head_groups": indices(1)}, 2: {"head_groups": indices(0)}},
    "query_heads": {1: {"query_heads": indices(1, 2)}},
    "channels": {0: {"channels": torch.arange(0, FFN, 2)}, 1: {"channels": indices(63)}},
    "both": {1: {"head_groups": indices(0), "channels": torch.arange(5, 23)}},
}


def some_windows(seed: int):
    generator = torch.Generator().manual_seed(seed)
    ids_T = torch.randint(VOCABULARY, ((BEFORE + 1) * BATCH * WINDOW,), generator=generator)
    return mix([Part(source="random", ids_T=ids_T)], window=WINDOW, tokens=TRAINING.tokens)


def trained_twice(make, windows, tmp_path: Path) -> tuple[PreTrainedModel, PreTrainedModel, dict[str, Tensor]]:
    """The same model twice after some steps, and the moments that these have left."""
    pair, state = (make(), make()), tmp_path / "state.safetensors"
    for model in pair:
        recover(model, windows, TRAINING, span=FIRST, checkpoint=state)
    return *pair, moments_in(state)


def written(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path


def difference(one: PreTrainedModel, other: PreTrainedModel) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("make", "cut"),
    [
        (llama, "head_groups"),
        (llama, "query_heads"),
        (qwen2, "both"),
        (qwen3, "both"),
        (gemma, "channels"),
        (opt, "channels"),
        (opt, "head_groups"),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_a_step_behind_a_cut_is_that_of_the_masked_model_restricted_to_what_stays(make, cut, seed, tmp_path):
    windows, kept = some_windows(seed), CUTS[cut]
    whole, smaller, moments = trained_twice(make, windows, tmp_path)
    before = written(moments, tmp_path / "moments.safetensors")
    after = written(slice_along(smaller, kept, moments), tmp_path / "sliced.safetensors")
    slice_units(smaller, kept)
    with masked(whole, kept):
        recover(whole, windows, TRAINING, span=NEXT, moments=before)
    recover(smaller, windows, TRAINING, span=NEXT, moments=after)
    slice_units(whole, kept)
    assert difference(whole, smaller) < TOLERANCE
    forgetful = make()
    recover(forgetful, windows, TRAINING, span=FIRST)
    slice_units(forgetful, kept)
    recover(forgetful, windows, TRAINING, span=NEXT)
    assert difference(forgetful, smaller) > 1e-3  # moments that begin at zero take the whole rate at once


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_neox"])
def test_a_tensor_of_every_parameter_is_cut_as_the_parameter_is(family):
    """The weights themselves, carried along, are the weights that the cut leaves."""
    model = FAMILIES[family]()
    kept = CUTS["both"] | {2: {"channels": torch.arange(3, 40)}}
    weights = {f"{name}/copy": parameter.detach().clone() for name, parameter in model.named_parameters()}
    sliced = slice_along(model, kept, weights)
    slice_units(model, kept)
    assert sliced.keys() == weights.keys()
    for name, parameter in model.named_parameters():
        assert torch.equal(sliced[f"{name}/copy"], parameter), name


def test_numbers_stay_and_a_tensor_of_another_shape_is_refused():
    name = "model.layers.0.mlp.down_proj.weight"
    assert slice_along(llama(), CUTS["channels"], {f"{name}/step": torch.tensor(3.0)})[f"{name}/step"].item() == 3
    with pytest.raises(ValueError, match=r"^tensors: .*/exp_avg has shape \(3,\), .* \(32, 64\)$") as error:
        slice_along(llama(), CUTS["channels"], {f"{name}/exp_avg": torch.zeros(3)})
    assert "\n" not in str(error.value)


def test_moments_in_a_file_are_those_of_the_state(tmp_path):
    windows = some_windows(0)
    _, _, moments = trained_twice(llama, windows, tmp_path)
    stored = load_file(tmp_path / "state.safetensors")
    assert {f"adamw/{key}" for key in moments} == {key for key in stored if not key.startswith("model/")}
    assert all(moments[key].item() == BEFORE for key in moments if key.endswith("/step"))

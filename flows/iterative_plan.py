"""What `iterative` will do, before any work: its stages, told without the weights, and what is checked with them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from flows.iterative_choices import Iterative
from flows.iterative_presets import Preset
from flows.prepare import Found, check_texts, find, training_for, window_for
from tasks.calibrate.importance.importance import Importance
from tasks.evaluate.task import fits
from tasks.model.load import check_folder, check_tokenizer, load_config, load_model, load_tokenizer, resolve
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.reach import KINDS, Reach, reach_of
from tasks.recover.checkpoint import Training
from tasks.recover.stages import CutStage, cut_stages
from tasks.train_controller.allocators.unit_rungs import unit_problem


@dataclass(frozen=True, kw_only=True)
class PreparedIterative(Found):
    """An `Iterative` with everything looked up."""

    calibration_window: int
    importance: Importance
    reach: Reach
    training: Training
    stages: tuple[CutStage, ...]


def prepare_iterative(parameters: Iterative) -> PreparedIterative:
    """Look up and check everything that a run names. Raises ValueError in one line; reads the weights once."""
    found, folder = find(parameters)
    calibration_window = _calibration_window(parameters, found.window, folder)
    check_texts(parameters, found, folder, calibration_window)
    reach = _reach(found.model.hash, folder, parameters.round_to)
    _check_cuts(parameters, reach)
    stages = stages_of(parameters, reach.parameters, found.window)
    training = training_for(parameters, found, folder)
    assert training is not None  # without tokens there are no such parameters
    return PreparedIterative(
        **vars(found),
        calibration_window=calibration_window,
        importance=parameters.importance.build().only(KINDS),
        reach=reach,
        training=training,
        stages=stages,
    )


def stages_of(parameters: Iterative, before: int, window: int) -> tuple[CutStage, ...]:
    """The stages of a model that has `before` parameters. Raises ValueError for too few tokens, and as `cut_stages`."""
    step = parameters.recover_batch * window
    if parameters.recover_tokens < (least := parameters.least_tokens(window)):
        given = f"recover_tokens: {parameters.recover_tokens} given for {parameters.stages} stages"
        raise ValueError(f"{given}, valid is {least} or more: in steps of {step}, of which the first stage has one")
    return cut_stages(
        parameters=before,
        target=parameters.target_parameters,
        stages=parameters.stages,
        steps=parameters.recover_tokens // step,
    )


def described(preset: Preset) -> list[dict[str, Any]]:
    """A row for each stage: what it leaves and what it trains. Where a preset knows its model nothing is looked up."""
    parameters, before, window = preset.flow, preset.before, preset.flow.window
    if before is None or window is None:
        folder = resolve(parameters.model)
        check_folder(folder)
        config = load_config(folder)
        window = window_for(window, config)
        before = before or _count(folder)
    training = parameters.training()
    assert training is not None  # without tokens there are no such parameters
    recovery = training.recovery
    stages = stages_of(parameters, before, window)  # raises for tokens that are not even one step, too
    steps = recovery.steps(window)
    return [
        {
            "stage": stage.stage,
            "parameters": stage.target,
            "steps": stage.span.steps,
            "tokens": stage.span.steps * recovery.batch * window,
            "rate_from": recovery.rate_at(stage.span.first, steps),
            "rate_to": recovery.rate_at(stage.span.last - 1, steps),
        }
        for stage in stages
    ]


@cache
def _reach(content: str, folder: Path, round_to: int) -> Reach:
    """How far the model can be cut, which has a tokenizer that fits, and room in memory. Once for every `content`."""
    check_tokenizer(load_tokenizer(folder), load_config(folder))
    if not fits(folder, "cpu"):
        raise ValueError(f"model: {folder} takes more than half of the memory that is free; iterative holds it whole")
    model = load_model(folder)
    reach = reach_of(model, round_to=round_to)
    unit_problem(model, Cut(budget=reach.unit / reach.of_blocks, round_to=round_to))  # raises for unequal steps
    return reach


def _check_cuts(parameters: Iterative, reach: Reach) -> None:
    target, most = parameters.target_parameters, reach.parameters - reach.unit
    if not reach.least <= target <= most:
        raise ValueError(f"target_parameters: {target} given, valid is {reach.least} to {most}")
    units = (reach.parameters - target) // reach.unit
    if parameters.stages > units:
        given = f"stages: {parameters.stages} given, valid is 1 to {units}"
        raise ValueError(f"{given}: each cuts one unit or more, of {reach.unit} parameters at least")


def _calibration_window(parameters: Iterative, window: int, folder: Path) -> int:
    if parameters.calibration_window is None:
        return window
    try:
        return window_for(parameters.calibration_window, load_config(folder))
    except ValueError as error:
        raise ValueError(f"calibration_{error}") from error


def _count(folder: Path) -> int:
    """The parameters of a model, from its configuration alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(folder))
    return sum(parameter.numel() for parameter in model.parameters())

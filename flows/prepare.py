"""What every flow checks before any work: words that cannot be meant fail here, in one line that names the field."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from flows.activation_choices import Activation
from flows.choices import Oneshot, Slice
from flows.device import device_named
from flows.fit import check_fit, check_inputs, check_length, check_units, fitting_cuts
from flows.profile_choices import BY_INFLUENCE, Profiles
from flows.recoveries import Recovering
from flows.texts import OfTexts
from tasks.calibrate.importance.importance import BLOCKS, Importance
from tasks.calibrate.importance.influence import Influence
from tasks.data.labelled import check_labelled
from tasks.data.sources import check_first_row, check_source
from tasks.evaluate.task import check_speed, fits
from tasks.handles import Checkpoint
from tasks.model.anatomy import prunable_blocks
from tasks.model.load import (
    check_folder,
    context_of,
    fingerprint,
    load_config,
    load_tokenizer,
    resolve,
    weight_bytes,
)
from tasks.prune.activation.results import NamedRecipe
from tasks.prune.activation.triton_product import check_device
from tasks.prune.allocators import Allocator
from tasks.prune.structure.cut import Cut
from tasks.prune.structure.named_cuts import NamedCut
from tasks.prune.weight.recipe import Recipe
from tasks.record import home
from tasks.recover.checkpoint import Training
from tasks.train_controller.allocators.search import Searcher

USUAL_WINDOW = 2048


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the words name, looked up."""

    name: str  # of the model, short
    model: Checkpoint
    window: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Prepared(Found):
    """A `Oneshot` with everything looked up: what the stages take."""

    recipe: Recipe
    allocator: Allocator | Searcher
    training: Training | None


@dataclass(frozen=True, kw_only=True)
class PreparedSlice(Found):
    """A `Slice` with everything looked up."""

    importance: Importance
    cut: Cut
    training: Training | None


@dataclass(frozen=True, kw_only=True)
class PreparedProfiles(Found):
    """A `Profiles` with everything looked up. `importances`, by name: those that order what the cuts take."""

    cuts: tuple[NamedCut, ...]
    importances: dict[str, Importance]


@dataclass(frozen=True, kw_only=True)
class PreparedActivation(Found):
    """An `Activation` with everything looked up."""

    how: NamedRecipe
    allocator: Allocator


def prepare(parameters: Oneshot) -> Prepared:
    """Look up and check everything that a run names. Raises ValueError in one line; reads the weights once."""
    found, folder = find(parameters)
    check_texts(parameters, found, folder)
    recipe, allocator = parameters.recipe(), parameters.allocation.build()
    parameters.check_windows(found.window)
    check_fit(found.model.hash, folder, recipe, allocator)
    training = training_for(parameters, found, folder)
    return Prepared(**vars(found), recipe=recipe, allocator=allocator, training=training)


def prepare_slice(parameters: Slice) -> PreparedSlice:
    """As `prepare`; the cut is tried on the model itself, which has to fit into memory."""
    found, folder = find(parameters)
    check_texts(parameters, found, folder)
    cut, training = parameters.cut(), training_for(parameters, found, folder)
    parameters.check_windows(found.window)
    check_units(found.model.hash, folder, cut, None if parameters.search is None else parameters.search.build())
    importance = parameters.importance.build().only(parameters.units)
    return PreparedSlice(**vars(found), importance=importance, cut=cut, training=training)


def prepare_profiles(parameters: Profiles) -> PreparedProfiles:
    """As `prepare`; the cuts are tried on the model itself, which has to fit into memory."""
    found, folder = find(parameters)
    check_texts(parameters, found, folder)
    cuts = fitting_cuts(found.model.hash, folder, parameters.cuts(), parameters.round_to)
    importances: dict[str, Importance] = {}
    if any(cut.units != BLOCKS for cut in cuts):
        units = {cut.units for cut in cuts} - {BLOCKS}
        importances[parameters.importance.method] = parameters.importance.build().only(units)
    if any(cut.units == BLOCKS for cut in cuts):
        importances[BY_INFLUENCE] = Influence(kinds=(BLOCKS,))
    return PreparedProfiles(**vars(found), cuts=cuts, importances=importances)


def prepare_activation(parameters: Activation) -> PreparedActivation:
    """As `prepare`; the linears are looked for in the model itself, which has to fit into memory."""
    found, folder = find(parameters)
    check_texts(parameters, found, folder)
    if parameters.speed and found.device != "cpu":
        try:
            check_device(torch.device(found.device))
        except ValueError as error:
            raise ValueError(f"speed: {error}, or give --no-speed") from error
    how, allocator = parameters.how(), parameters.allocation.build()
    check_inputs(found.model.hash, folder, how.recipe, allocator, parameters.greedy is not None)
    return PreparedActivation(**vars(found), how=how, allocator=allocator)


def check_points(points: Iterable[Oneshot | Slice | Activation]) -> None:
    """Raises what preparing one of them would raise, and for a pattern how to leave it out."""
    for point in points:
        try:
            check(point)
        except ValueError as mistake:
            if str(mistake).startswith("pattern:"):
                raise ValueError(f"{mistake}; --pattern chooses some of the sweep's patterns") from mistake
            raise


def check(parameters: Oneshot | Slice | Activation) -> None:
    """Raises what preparing this run would raise."""
    match parameters:
        case Slice():
            prepare_slice(parameters)
        case Activation():
            prepare_activation(parameters)
        case _:
            prepare(parameters)


def find(parameters: OfTexts) -> tuple[Found, Path]:
    """What every flow over texts names, and the folder of its model."""
    folder = resolve(parameters.model)
    check_folder(folder)
    for role, source in (("calibration", parameters.calibration), ("evaluation", parameters.evaluation)):
        try:
            check_source(source, role)
            check_first_row(source)
        except ValueError as error:
            raise ValueError(f"{role}: {error}") from error
    home.check_writable(min_free_bytes=4 * weight_bytes(folder))
    config = load_config(folder)
    device = device_named(parameters.device)
    if parameters.speed:
        check_speed(folder, device)
    found = Found(
        name=folder.resolve().name,
        model=Checkpoint(hash=fingerprint(folder), folder=str(folder.absolute())),
        window=window_for(parameters.window, config),
        device=device,
    )
    return found, folder


def check_texts(parameters: OfTexts, found: Found, folder: Path, calibration_window: int | None = None) -> None:
    """The texts that are files are long enough for their windows. `calibration_window`: where it is another one."""
    model, window = found.model.hash, calibration_window or found.window
    check_length(model, folder, parameters.calibration, "calibration", window, parameters.samples)
    check_length(model, folder, parameters.evaluation, "evaluation", found.window)


def training_for(parameters: Recovering, found: Found, folder: Path) -> Training | None:
    """How what is left is trained, if it is: the tokens make a step, the texts are there, the adapters have linears."""
    training = parameters.training()
    if training is None:
        return None
    recovery = training.recovery
    if recovery.tokens < (step := recovery.batch * found.window):
        given = f"recover_tokens: {recovery.tokens} given"
        raise ValueError(f"{given}, valid is {step} or more: a step of {recovery.batch} windows of {found.window}")
    field = "recover_text" if parameters.recover_text else "calibration"
    for text in parameters.texts():
        try:
            check_labelled(text.source, load_tokenizer(folder))
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
    if training.lora is not None:
        training.lora.check(prunable_blocks(load_config(folder)))
    if not fits(folder, "cpu"):
        raise ValueError(f"model: {folder} takes more than half of the memory that is free; a training holds it whole")
    return training


def window_for(asked: int | None, config: PreTrainedConfig) -> int:
    context = context_of(config)
    if asked is None:
        return min(USUAL_WINDOW, context or USUAL_WINDOW)
    if context is not None and asked > context:
        raise ValueError(f"window: {asked} is longer than the model's context; at most {context}")
    return asked

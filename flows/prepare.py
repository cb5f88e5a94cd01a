"""What every flow checks before any work: words that cannot be meant fail here, in one line that names the field."""

from dataclasses import dataclass
from pathlib import Path

import torch

from flows.choices import Oneshot
from tasks.data.sources import check_source
from tasks.handles import Checkpoint
from tasks.model.load import check_folder, fingerprint, load_config, prunable_widths, resolve, weight_bytes
from tasks.prune.weight.pattern import Pattern, parse_pattern
from tasks.prune.weight.pruner import Pruner
from tasks.record import home

USUAL_WINDOW = 2048


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A `Oneshot` with everything looked up: what the stages take."""

    name: str  # of the model, short
    model: Checkpoint
    pruner: Pruner
    pattern: Pattern
    window: int
    device: str


def prepare(parameters: Oneshot) -> Prepared:
    """Look up and check everything that a run names. Raises ValueError in one line; reads the weights once."""
    folder = resolve(parameters.model)
    check_folder(folder)
    check_source(parameters.calibration, "calibration")
    check_source(parameters.evaluation, "evaluation")
    home.check_writable(min_free_bytes=4 * weight_bytes(folder))
    pattern = parse_pattern(parameters.pattern)
    for linear, width in prunable_widths(folder).items():
        pattern.check_width(width, linear)
    return Prepared(
        name=Path(parameters.model).name,
        model=Checkpoint(hash=fingerprint(folder), folder=str(folder.absolute())),
        pruner=parameters.pruner.build(),
        pattern=pattern,
        window=_window(parameters.window, folder),
        device=_device(parameters.device),
    )


def _window(asked: int | None, folder: Path) -> int:
    context = getattr(load_config(folder), "max_position_embeddings", None)
    if asked is None:
        return min(USUAL_WINDOW, context or USUAL_WINDOW)
    if context is not None and asked > context:
        raise ValueError(f"window: {asked} is longer than the model's context; at most {context}")
    return asked


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: {asked} is not available here; use cpu or auto")
    return asked

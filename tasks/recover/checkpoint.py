"""A recovery from a folder to a folder: load, train all weights or adapters, by text or by the dense model, save."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedModel

from tasks.model.load import load_model, save_model
from tasks.recover.distil import Distil, Distillation
from tasks.recover.lora import LoRA, adapters
from tasks.recover.objective import Objective
from tasks.recover.processes import Processes
from tasks.recover.recover import Recovered, Step, recover
from tasks.recover.recovery import Recovery, Span
from tasks.recover.state import gathered
from tasks.recover.windows import Windows

FULL_RATE, LORA_RATE = 2e-5, 2e-4  # at their peak, where none is given; thin updates begin at zero and bear more


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a recovery is told beside its texts. `lora`: adapters in place of all weights; `distil`: from what."""

    recovery: Recovery
    lora: LoRA | None = None
    distil: Distillation | None = None


def usual_rate(lora: LoRA | None) -> float:
    """The learning rate at its peak, where none is given."""
    return FULL_RATE if lora is None else LORA_RATE


def recover_folder(
    source: Path,
    target: Path,
    windows: Windows,
    training: Training,
    *,
    dense: Path | None = None,
    span: Span | None = None,
    moments: Path | None = None,
    run_code: bool = False,
    device: str = "cpu",
    state: Path,
    state_every: int,
    report: Callable[[Step], None] = lambda step: None,
    processes: Processes | None = None,
) -> Recovered:
    """Train the model of `source` on `windows` and write it to `target`, in the form and the dtypes that it had.

    `dense`: the teacher, where `training` distils; `span` and `moments`: as tasks.recover.recover has them; `run_code`:
    as tasks.model.load has it. Zeros stay zeros, so the orders of tasks.prune.orders, which speak of them, are copied.
    A state at `state` is gone on from. Of several processes all call this, and the first writes.

    Raises ValueError as `recover` and `adapters` do, and for a distillation without a dense model.
    """
    processes = processes or Processes()
    model = load_model(source, device, run_code=run_code).float()
    with adapters(model, training.lora, training.recovery.seed) if training.lora else nullcontext():
        recovered = recover(
            model,
            windows,
            training.recovery,
            objective=_objective(training.distil, dense, device),
            span=span,
            moments=moments,
            checkpoint=state,
            checkpoint_every=state_every,
            report=report,
            processes=processes,
        )
    weights = {name: gathered(weight) for name, weight in model.state_dict().items()}
    if processes.rank == 0:
        stored = load_model(source, run_code=run_code)
        stored.load_state_dict(weights)
        _save(stored, source, target)
    processes.wait()
    return recovered


def _objective(distil: Distillation | None, dense: Path | None, device: str) -> Objective | None:
    if distil is None:
        return None
    if dense is None:
        raise ValueError("dense: none given, valid beside a distillation is the folder of the dense model")
    return Distil(dense=load_model(dense, device), **asdict(distil))


def _save(model: PreTrainedModel, source: Path, target: Path) -> None:
    save_model(model, source, target)
    for orders in sorted(source.glob("orders-*.safetensors")):
        shutil.copyfile(orders, target / orders.name)

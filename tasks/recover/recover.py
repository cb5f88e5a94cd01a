"""Recovery: what pruning or slicing broke is trained back, in place, by AdamW over packed windows.

Whatever has a gradient is trained: the whole model, or the adapters of tasks.recover.lora. Weights and the optimizer's
state are float32; on a GPU the products run in bfloat16. Zeros in the linears of the blocks stay where they are. Which
windows a step sees, its rate and its dropout follow from the step's number alone, so an interruption changes nothing.

Axes: B windows of a batch, W tokens of a window.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import PreTrainedModel

from tasks.recover.keeps import hold, keep_of, pruned_linears
from tasks.recover.moments import begin_with, digest_of
from tasks.recover.objective import CrossEntropy, Objective, learned
from tasks.recover.processes import Processes, join
from tasks.recover.recompute import recomputing
from tasks.recover.recovery import Recovery, Span
from tasks.recover.state import config_of, gathered, name_training, restore, save
from tasks.recover.windows import SourceTokens, Windows, check_windows, ledger

SAMPLED = 4096  # numbers of a parameter by which a model is known again


@dataclass(frozen=True, kw_only=True)
class Step:
    """A point of the loss curve. `loss`: the objective's mean over the batch's `learned` tokens, before the step."""

    step: int
    loss: float
    learned: int
    rate: float
    gradient_norm: float  # before clipping, of what is trained


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What a recovery did: its curve, and the ledger of what was trained, by spans before this one too."""

    curve: tuple[Step, ...]
    sources: tuple[SourceTokens, ...]
    zeros: int  # counted afterwards in the linears that had zeros before


def recover(
    model: PreTrainedModel,
    windows: Windows,
    recovery: Recovery,
    *,
    objective: Objective | None = None,
    span: Span | None = None,
    moments: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    report: Callable[[Step], None] = lambda step: None,
    processes: Processes | None = None,
) -> Recovered:
    """Train in place what has a gradient, on the first `recovery.tokens` tokens of the windows; `report` every step.

    `objective`: the cross entropy of the text unless tasks.recover.distil is given. `span`: only these of its steps;
    `moments`: the file (tasks.recover.moments) that those before them have left. Every `checkpoint_every` steps and at
    the end the state is written to `checkpoint`; a run that finds such a file goes on from it. Under `accelerate
    launch` all processes call this with the same arguments, and share the batch; `processes` are found where not given.

    Raises ValueError for windows too few, a batch that cannot be shared, a span or moments of another training,
    parameters that are not float32, a checkpoint of another training, or a loss that is no longer finite.
    """
    objective, processes = objective or CrossEntropy(), processes or join()
    steps = recovery.steps(windows.ids_NW.shape[1])
    span = span or Span(first=0, last=steps)
    span.check(steps)
    recovery.share(processes.count)
    check_windows(windows, span.last * recovery.batch)
    _check(model, checkpoint_every)
    training = _name(model, windows, recovery, objective, span, moments)
    pruned = pruned_linears(model)
    wrapped, optimizer = processes.prepare(model, _optimizer(model, recovery))
    keeps = {each.weight: keep_of(each.weight) for each in pruned.values() if each.weight.requires_grad}
    curve: list[Step] = []
    if moments is not None:
        begin_with(moments, model, optimizer)
    if checkpoint is not None and checkpoint.exists():
        stored = restore(checkpoint, model, {"adamw": optimizer}, training)
        curve = [Step(**point) for point in stored["curve"]]

    with _training(model, recovery):
        for number in range(span.first + len(curve), span.last):
            rate = recovery.rate_at(number, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            torch.manual_seed((recovery.seed << 32) + number * processes.count + processes.rank)
            batch_B = windows.order_S[number * recovery.batch : (number + 1) * recovery.batch]
            loss, count = _backward(wrapped, windows, batch_B, recovery, objective, processes)
            hold(keeps)
            norm = gathered(nn.utils.clip_grad_norm_(model.parameters(), recovery.clip)).item()
            if not math.isfinite(loss + norm):
                raise ValueError(
                    f"rate: {recovery.rate} given, step {number} has a loss of {loss}; valid is a lower one"
                )
            optimizer.step()
            curve.append(Step(step=number, loss=loss, learned=count, rate=rate, gradient_norm=norm))
            if checkpoint is not None and ((number + 1) % checkpoint_every == 0 or number + 1 == span.last):
                facts = {"curve": [asdict(point) for point in curve]}
                save(checkpoint, model, {"adamw": optimizer}, facts, training, writes=processes.rank == 0)
                processes.wait()
            report(curve[-1])
    return Recovered(
        curve=tuple(curve),
        sources=ledger(windows, span.last * recovery.batch),
        zeros=sum(int((gathered(each.weight.detach()) == 0).sum()) for each in pruned.values()),
    )


def _check(model: PreTrainedModel, checkpoint_every: int) -> None:
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: {checkpoint_every} given, valid is 1 step or more")
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("model: none of its parameters has a gradient, so there is nothing to train")
    for name, parameter in trained:
        if parameter.dtype != torch.float32:
            raise ValueError(f"model: {name} is {parameter.dtype}, valid is float32: small steps vanish in less")


def _backward(
    model: nn.Module,
    windows: Windows,
    batch_B: Tensor,
    recovery: Recovery,
    objective: Objective,
    processes: Processes,
) -> tuple[float, int]:
    """Gradients of the mean over all tokens learned in the batch, of which this process takes its share.

    Returns that mean and the number of tokens, both of the whole batch. Processes average their gradients, so each
    multiplies its own by their number.
    """
    own, at_once = recovery.share(processes.count)
    count = int(learned(windows.labels_NW[batch_B]).sum())
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    forwards = batch_B[processes.rank * own : (processes.rank + 1) * own].split(at_once)
    for forward, some_B in enumerate(forwards, start=1):
        ids_BW, labels_BW = (every_NW[some_B].to(device) for every_NW in (windows.ids_NW, windows.labels_NW))
        with nullcontext() if forward == len(forwards) else processes.accumulating(model):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = objective.total(model, ids_BW, labels_BW)
            (loss * (processes.count / count)).backward()
        total += loss.detach()
    return processes.total(total).item() / count, count


def _optimizer(model: PreTrainedModel, recovery: Recovery) -> AdamW:
    """Matrices decay, vectors do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": recovery.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=recovery.rate, betas=recovery.betas)


@contextmanager
def _training(model: PreTrainedModel, recovery: Recovery) -> Iterator[None]:
    """The model in training mode, recomputing if asked.

    Then its modes are what they were, it holds no gradients, and nobody else's random numbers have moved.
    """
    modes = {module: module.training for module in model.modules()}
    model.train()
    device = next(model.parameters()).device
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            recomputing(model) if recovery.recompute else nullcontext(),
        ):
            yield
    finally:
        model.zero_grad()
        for module, mode in modes.items():
            module.training = mode


def _name(
    model: PreTrainedModel,
    windows: Windows,
    recovery: Recovery,
    objective: Objective,
    span: Span,
    moments: Path | None,
) -> str:
    """Of the settings, the windows and the model that is to be trained: of its weights, a sample of every tensor."""
    parameters = dict(model.named_parameters())
    facts = {
        "recovery": asdict(recovery),
        "objective": objective.facts(),
        "config": config_of(model),
        "span": asdict(span),
        "moments": None if moments is None else digest_of(moments),
        "trained": [name for name, parameter in parameters.items() if parameter.requires_grad],
    }
    samples = [each.detach().flatten()[:: max(1, each.numel() // SAMPLED)] for each in parameters.values()]
    return name_training(facts, windows.ids_NW, windows.labels_NW, windows.order_S, *samples)

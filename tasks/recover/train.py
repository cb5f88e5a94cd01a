"""A plain training loop for a causal language model: Muon and AdamW, warm-up, stable, decay; bounded and resumable.

Matrices of the blocks take Muon (Jordan et al., 2024: momentum, orthogonalised by Newton-Schulz), scaled so that an
update has AdamW's size (arXiv:2502.16982); embeddings and vectors take AdamW. The learning rate rises, stays, and
falls linearly to zero (arXiv:2405.18392); windows may grow meanwhile (arXiv:2108.06084). Products run in bfloat16, the
weights and the optimizer's state stay in float32.

Axes: N windows, T tokens of a window.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from tasks.recover import state
from tasks.recover.schedule import trapezoid


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. Learning rates are peaks; `warmup` and `decay` are fractions of the budget."""

    batch: int = 16  # windows of one step
    matrix_rate: float = 0.006
    vector_rate: float = 0.004
    weight_decay: float = 0.05  # of the matrices
    warmup: float = 0.02
    decay: float = 0.4
    clip: float = 1.0  # largest l2 norm of the gradient
    grow: bool = False  # short windows first: attention over them is cheap, and what is near is learned first
    seed: int = 0

    def rate(self, spent: float) -> float:
        """The factor on the peak learning rates after a fraction (0 to 1) of the budget."""
        return trapezoid(spent, self.warmup, self.decay)

    def pieces(self, spent: float) -> int:
        """Into how many pieces a window is cut after a fraction of the budget: 4, then 2, then none."""
        if not self.grow or spent >= 0.75:
            return 1
        return 4 if spent < 0.5 else 2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands after `step` steps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of training: without reports and interruptions
    fraction: float = 0.0  # of the budget
    loss: float = float("nan")  # mean nats per token since the last report

    @property
    def tokens_per_s(self) -> float:
        """The mean since the start."""
        return self.tokens / self.seconds if self.seconds else 0.0


def train(
    model: PreTrainedModel,
    windows_NT: Tensor,
    recipe: Recipe,
    *,
    seconds: float = float("inf"),
    tokens: float = float("inf"),
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    report_every: float = 30.0,
    compiled: bool = False,
) -> Progress:
    """Train in place until `seconds` of training or `tokens` are spent, whichever comes first.

    Every epoch goes through all windows in an order of its own that follows from the seed. Every `report_every` seconds
    and at the end `report` is called; with `checkpoint` the state is written there just before, and a run that finds
    such a file goes on from it, towards the budget that is given now. ValueError for a training without an end, with
    too few windows for one batch, or with the checkpoint of another text, recipe or model.
    """
    _check(windows_NT, recipe, seconds, tokens)
    optimizers = make_optimizers(model, recipe)
    done, training = Progress(), name_training(model, windows_NT, recipe)
    if checkpoint is not None and checkpoint.exists():
        done = restore(checkpoint, model, optimizers, training)
        done = replace(done, fraction=min(1.0, max(done.seconds / seconds, done.tokens / tokens)))

    def loss_of(ids_NT: Tensor) -> Tensor:
        with torch.autocast(ids_NT.device.type, torch.bfloat16):
            return model(input_ids=ids_NT, labels=ids_NT, use_cache=False).loss

    forward = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    model.train()
    losses: list[float] = []
    reported = time.monotonic()
    started = reported - done.seconds
    while done.fraction < 1.0:
        set_rates(optimizers, recipe.rate(done.fraction))
        ids_NT = windows_NT[batch_of(done.step, len(windows_NT), recipe)].to(model.device)
        ids_NT = ids_NT.view(-1, ids_NT.shape[1] // recipe.pieces(done.fraction))
        loss = forward(ids_NT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())

        spent, seen = time.monotonic() - started, done.tokens + ids_NT.numel()
        done = Progress(
            step=done.step + 1,
            tokens=seen,
            seconds=spent,
            fraction=min(1.0, max(spent / seconds, seen / tokens)),
            loss=sum(losses) / len(losses),
        )
        if time.monotonic() - reported >= report_every or done.fraction >= 1.0:
            if checkpoint is not None:
                state.save(checkpoint, model, optimizers, asdict(done), training)
            report(done)
            losses, reported = [], time.monotonic()
            started = reported - done.seconds
    model.eval()
    return done


def make_optimizers(model: PreTrainedModel, recipe: Recipe) -> dict[str, Optimizer]:
    """Muon for the matrices of the blocks; AdamW for embeddings and vectors, which do not decay."""
    embeddings = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in embeddings]
    others = [parameter for parameter in parameters if parameter.ndim != 2 or id(parameter) in embeddings]
    optimizers: dict[str, Optimizer] = {
        "muon": Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        "adamw": AdamW(others, lr=recipe.vector_rate, betas=(0.9, 0.95), weight_decay=0.0),
    }
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_rates(optimizers: dict[str, Optimizer], factor: float) -> None:
    """Every learning rate becomes its peak times the factor."""
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def batch_of(step: int, windows: int, recipe: Recipe) -> Tensor:
    """The indices of the windows of a step: a fresh order each epoch, the incomplete last batch left out."""
    epoch, position = divmod(step, windows // recipe.batch)
    order = torch.randperm(windows, generator=torch.Generator().manual_seed(recipe.seed + epoch))
    return order[position * recipe.batch : (position + 1) * recipe.batch]


def name_training(model: PreTrainedModel, windows_NT: Tensor, recipe: Recipe) -> str:
    """SHA-256 over what a training is of: the windows, the recipe, the model's configuration; not its budget."""
    return state.name_training({"recipe": asdict(recipe), "config": state.config_of(model)}, windows_NT)


def restore(path: Path, model: PreTrainedModel, optimizers: dict[str, Optimizer], training: str) -> Progress:
    """Bring weights and optimizer state back; return the progress at that time. ValueError for another training's."""
    return Progress(**state.restore(path, model, optimizers, training))


def _check(windows_NT: Tensor, recipe: Recipe, seconds: float, tokens: float) -> None:
    if seconds == tokens == float("inf"):
        raise ValueError("budget: neither seconds nor tokens are given, the training would never end")
    if len(windows_NT) < recipe.batch:
        raise ValueError(f"windows: {len(windows_NT)} given, fewer than one batch of {recipe.batch}")
    if recipe.grow and windows_NT.shape[1] % 4:
        raise ValueError(f"grow: windows of {windows_NT.shape[1]} tokens cannot be cut into 4")

"""What linears with sparse inputs really read: the share of inputs dropped and the energy kept, counted as they run.

Axes: T tokens, I inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tasks.model.anatomy import linears_of
from tasks.prune.activation.apply import Installed
from tasks.prune.activation.read import Read
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.rows import SparseInputRow
from tasks.prune.activation.sparse_input import SparseInput, SparseLinear, learned


class Reading:
    """Counts of one input over all tokens that were seen."""

    def __init__(self) -> None:
        self.inputs = 0
        self.kept: torch.Tensor | int = 0
        self.energy: torch.Tensor | float = 0.0
        self.energy_of_kept: torch.Tensor | float = 0.0
        self._last: Read | None = None

    def see(self, read: Read) -> None:
        """Several linears get the same `read`, one after the other; it counts once."""
        if read is self._last:
            return
        self._last = read
        square_TI, keep_TI = read.x_TI.float().square(), read.chosen.keep_TI
        self.inputs += keep_TI.numel()
        self.kept = self.kept + keep_TI.sum()
        self.energy = self.energy + square_TI.sum(dtype=torch.float64)
        self.energy_of_kept = self.energy_of_kept + (square_TI * keep_TI).sum(dtype=torch.float64)

    @property
    def dropped(self) -> float:
        """The share of the inputs, 0 to 1."""
        return 1 - float(self.kept) / self.inputs

    @property
    def energy_kept(self) -> float:
        """Σ (x · keep)² / Σ x², whatever stands in for what is dropped; 1 of inputs that are all 0."""
        return float(self.energy_of_kept) / float(self.energy) if self.energy else 1.0


@contextmanager
def reading(model: nn.Module) -> Iterator[dict[SparseInput, Reading]]:
    """Within, count what every sparse input of `model` passes on."""
    readings = {module: Reading() for module in model.modules() if isinstance(module, SparseInput)}
    hooks = [source.register_forward_hook(lambda at, _, read: readings[at].see(read)) for source in readings]
    try:
        yield readings
    finally:
        for hook in hooks:
            hook.remove()


def input_rows(
    installed: Installed, recipe: ActivationRecipe, readings: dict[SparseInput, Reading]
) -> list[SparseInputRow]:
    """A row for every input that `recipe` names. ValueError for one that nothing has read."""
    rows = []
    for number, groups in enumerate(recipe.groups(installed.anatomy)):
        for group in groups:
            name, first = next(iter(group.items()))
            source = first.source if isinstance(first, SparseLinear) else None
            found = None if source is None else readings[source]
            if found is not None and not found.inputs:
                raise ValueError(f"readings: block {number}, {name} has read nothing; let the model run on some text")
            threshold = None if source is None else dict(source.facts.named_buffers()).get("threshold")
            rows.append(
                SparseInputRow(
                    block=number,
                    linears="+".join(group),
                    in_features=first.in_features,
                    out_features=sum(each.out_features for each in group.values()),
                    asked=0.0 if source is None else source.pattern.sparsity,
                    dropped=0.0 if found is None else found.dropped,
                    energy_kept=1.0 if found is None else found.energy_kept,
                    threshold=None if threshold is None else threshold.item(),
                )
            )
    return rows


def weights_not_read(installed: Installed, rows: list[SparseInputRow]) -> float:
    """The share of the weights of all linears of the blocks that a token has not needed, at most 1.

    Less those that a mitigation adds and every token reads, the thin factors of R-Sparse: so it may be below 0.
    """
    weights = sum(each.weight.numel() for block in installed.anatomy.blocks for each in linears_of(block).values())
    added = sum(each.numel() for each in learned(installed.model).values() if each.dim() == 2)
    return (sum(row.in_features * row.out_features * row.dropped for row in rows) - added) / weights

"""What goes wrong in the update of a linear says of which block and linear it is."""

from dataclasses import dataclass

import pytest
import torch

from tasks.calibrate.observers import InputNorm
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.update import Update, Updated
from tests.cases import batches, llama


@dataclass(frozen=True, kw_only=True)
class Singular(Update):
    observes = InputNorm

    def update(self, weight_OI, keep_OI, stat):
        torch.linalg.cholesky(torch.zeros(2, 2))
        return Updated(weight_OI=weight_OI)


def test_what_torch_cannot_compute_names_the_linear():
    with pytest.raises(RuntimeError, match=r"^block 0, self_attn.q_proj: .*cholesky"):
        prune_model(llama(), Magnitude(), parse_pattern("2:4"), batches(), update=Singular())

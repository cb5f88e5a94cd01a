"""What linears really read: counted as they run, equal to what the choices themselves say."""

import pytest
import torch

from tasks.model.anatomy import before_each, dissect, linears_of
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.dpts import DynamicShift
from tasks.prune.activation.lpts import LearnedBias
from tasks.prune.activation.measure import input_rows, reading, weights_not_read
from tasks.prune.activation.nm import Magnitude
from tasks.prune.activation.rsparse import LowRankRest
from tasks.prune.activation.sparse_input import SparseInput
from tasks.prune.activation.threshold import Threshold
from tasks.prune.activation.topk import TopK
from tasks.prune.activation.var import Variance
from tasks.prune.weight.pattern import NM, Unstructured
from tests.cases import FAMILIES, batches, llama
from tests.prune.activation.test_sparse_inputs import IDS, logits, recipe

GROUPS = [
    "self_attn.q_proj+self_attn.k_proj+self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj+mlp.up_proj",
    "mlp.down_proj",
]


def test_shares_and_energies_are_those_of_the_inputs():
    """Against float64, from the inputs that reach the linears and the thresholds alone."""
    model, how = llama(), recipe("50%", selection=Threshold())
    seen: dict[str, torch.Tensor] = {}
    with sparse_inputs(model, how, batches()) as installed:
        every = [installed.anatomy.linears(number) for number in range(3)]
        linears = {f"{number} {name}": each for number, own in enumerate(every) for name, each in own.items()}
        with reading(model) as readings, before_each(linears, lambda name, x: seen.update({name: x.double()})):
            logits(model)
        rows = input_rows(installed, how, readings)
    assert [(row.block, row.linears) for row in rows] == [(number, group) for number in range(3) for group in GROUPS]
    for row in rows:
        x = seen[f"{row.block} {row.linears.split('+')[0]}"].abs()
        keep = x > row.threshold
        assert row.dropped == pytest.approx(1 - keep.double().mean().item())
        assert row.energy_kept == pytest.approx(((x * keep).square().sum() / x.square().sum()).item(), rel=1e-6)
        assert row.asked == 0.5


def test_energy_kept_of_gaussian_inputs_is_the_known_one():
    """methods.md: 50 % unstructured .929, 2:4 .868, on N(0, 1)."""
    x_TI = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    for selection, pattern, known in ((TopK(), Unstructured(0.5), 0.929), (Magnitude(), NM(2, 4), 0.868)):
        source = SparseInput(selection, pattern, {}, [Variance(), DynamicShift()], [{}, {}], readers=2)
        with reading(source) as readings:
            source(x_TI)
            source(x_TI)  # the second linear that reads the same input
        assert readings[source].inputs == x_TI.numel()
        assert readings[source].dropped == 0.5
        assert readings[source].energy_kept == pytest.approx(known, abs=3e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_not_read_are_those_of_all_linears_of_the_blocks(family):
    model = FAMILIES[family]()
    name = dissect(model).shared_inputs[0][-1][0]
    sizes = [linears_of(block) for block in dissect(model).blocks]
    of_name = sum(linears[name].weight.numel() for linears in sizes)
    whole = sum(each.weight.numel() for linears in sizes for each in linears.values())
    how = recipe("50%", selection=TopK(), modules=(name,))
    with sparse_inputs(model, how, batches()) as installed, reading(model) as readings:
        logits(model)
        rows = input_rows(installed, how, readings)
        assert weights_not_read(installed, rows) == pytest.approx(0.5 * of_name / whole)


def test_what_a_mitigation_reads_besides_counts_against_what_is_not_read():
    model, how = llama(), recipe("50%", LowRankRest(rank=2), LearnedBias(), modules=("down_proj",))
    with sparse_inputs(model, how, batches()) as installed, reading(model) as readings:
        logits(model)
        not_read = weights_not_read(installed, input_rows(installed, how, readings))
    weights = (2 * 32 + 2 * 16) * 32 + 3 * 64 * 32
    assert not_read == pytest.approx((0.5 * 64 * 32 - 2 * (64 + 32)) / weights)


def test_an_input_that_is_read_whole_has_a_row_too():
    model, how = llama(), recipe("50%", selection=TopK(), modules=("mlp.*",))
    shares = [{"mlp.gate_proj": Unstructured(0.0), "mlp.down_proj": Unstructured(0.75)}] * 3
    with sparse_inputs(model, how, batches(), shares) as installed, reading(model) as readings:
        logits(model)
        gate, down = input_rows(installed, how, readings)[:2]
    assert (gate.asked, gate.dropped, gate.energy_kept, gate.threshold) == (0, 0, 1, None)
    assert (down.asked, down.dropped) == (0.75, 0.75)


def test_nothing_stays_on_the_model_and_what_read_nothing_is_said():
    model, how = llama(), recipe("50%", selection=TopK())
    with sparse_inputs(model, how, batches()) as installed:
        with reading(model) as readings:
            pass
        logits(model, IDS)
        assert all(each.inputs == 0 for each in readings.values())
        with pytest.raises(ValueError, match=r"^readings: block 0, self_attn.q_proj has read nothing"):
            input_rows(installed, how, readings)

"""On a GPU no sweep, selection or observer waits for it, shown without one.

Tensors on the device "meta" have a shape and a dtype but no numbers, and are taken for those of a GPU here: whatever
needs a number on the host raises. What raises on a GPU alone is looked for in everything that is computed: copies from
the host, indices that are counted first, and linear algebra that reports its errors.
"""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tasks.calibrate.observers import InputDrift, InputGram, InputNorm
from tasks.prune.weight import replay, sweep
from tasks.prune.weight.pattern import parse_pattern

OUTPUTS, INPUTS = 48, 96
PATTERNS = ["50%", "50%@matrix", "2:4", "4:8", "16:32"]
ERRORS = (RuntimeError, NotImplementedError)


class NeverWaiting(TorchDispatchMode):
    """RuntimeError for an operation that makes the host wait; counts the others."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation._schema.name
        if any(isinstance(leaf, torch.Tensor) and not leaf.is_meta for leaf in tree_leaves((args, kwargs, result))):
            raise RuntimeError(f"{name} on the host")
        if name.startswith("aten::index") and any(leaf.dtype == torch.bool for leaf in tree_leaves(args[1])):
            raise RuntimeError(f"{name} counts what is True")
        if name == "aten::_linalg_check_errors":
            raise RuntimeError(f"{name} reads what went wrong")
        self.operations += 1
        return result


@pytest.fixture
def recordings(monkeypatch):
    """Recording needs CUDA; here what is recorded runs once, and replaying it does nothing. Counts the recordings."""
    made = []

    def record(compute, device):
        made.append(device.type)
        return lambda: None, compute()

    monkeypatch.setattr(replay, "record", record)
    monkeypatch.setattr(sweep, "DEVICES", ("meta",))
    sweep._recorded.cache_clear()
    yield made
    sweep._recorded.cache_clear()


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def known():
    """What is known of the inputs once the Gram has its Cholesky factor, for which the host does wait."""
    root_II = empty(INPUTS, INPUTS)
    return SimpleNamespace(gram_II=root_II, root_II=lambda damp: root_II, dead_I=empty(INPUTS, dtype=torch.bool))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x_TI: x_TI.sum().item(),
        lambda x_TI: bool((x_TI > 0).all()),
        lambda x_TI: torch.equal(x_TI, x_TI),
        lambda x_TI: (x_TI > 0).nonzero(),
        lambda x_TI: x_TI[x_TI > 0],
        lambda x_TI: x_TI.index_put_((x_TI > 0,), x_TI[0]),
        lambda x_TI: x_TI.cpu(),
        lambda x_TI: x_TI.numpy(force=True),
        lambda x_TI: torch.eye(4).to(x_TI),
        lambda x_TI: torch.linalg.cholesky(x_TI),
    ],
)
def test_waiting_is_noticed(wait):
    x_TI = empty(4, 4)
    with NeverWaiting(), pytest.raises(ERRORS):
        wait(x_TI)


@pytest.mark.parametrize("block", [32, 40])  # 40: the last block is narrower
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("choice", [*PATTERNS, "keep"])
def test_a_sweep_never_waits(choice, dtype, block, recordings):
    weight_OI, stat = empty(OUTPUTS, INPUTS, dtype=dtype), known()
    with NeverWaiting() as seen:
        chosen = weight_OI > 0 if choice == "keep" else parse_pattern(choice)
        swept_OI, keep_OI = sweep.sweep(weight_OI, stat, chosen, damp=0.01, block=block)
    assert (swept_OI.dtype, keep_OI.dtype) == (dtype, torch.bool)
    assert swept_OI.shape == keep_OI.shape == (OUTPUTS, INPUTS)
    assert seen.operations > 2 * block  # it did go through the columns
    assert recordings == ["meta"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_selection_never_waits(pattern):
    score_OI = empty(OUTPUTS, INPUTS)
    with NeverWaiting():
        keep_OI = parse_pattern(pattern).select(score_OI)
    assert (keep_OI.dtype, keep_OI.shape) == (torch.bool, score_OI.shape)


@pytest.mark.parametrize("kind", [InputNorm, InputGram, InputDrift])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_observer_never_waits_while_tokens_come(kind, dtype):
    stat, x_BTI = kind(INPUTS, "meta"), empty(2, 8, INPUTS, dtype=dtype)
    with NeverWaiting() as seen:
        if kind is InputDrift:
            stat.see_both(x_BTI, x_BTI)
        else:
            stat.see(x_BTI)
    assert stat.count == 16
    assert seen.operations > 0

"""The same on a GPU: sweeps, whole models by each method, and packed 2:4 checkpoints. Skipped where there is none."""

from contextlib import contextmanager

import pytest
import torch

from tasks.calibrate.observers import InputGram
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import dissect, find_blocks, linears_of
from tasks.prune import PRUNERS, UPDATES
from tasks.prune.pack import load_packed, pack_checkpoint
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import NM, parse_pattern
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.sweep import sweep
from tasks.prune.weight.wanda import Wanda
from tests.cases import batches, llama
from tests.prune.weight.test_pruners import case

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PATTERNS = ["50%", "50%@matrix", "2:4", "4:8", "16:32"]


def seen(x_TI, device):
    stat = InputGram(x_TI.shape[1], device)
    stat.update(x_TI.to(device))
    return stat


def iou(one, other):
    one, other = one.cpu(), other.cpu()
    return ((one & other).sum() / (one | other).sum()).item()


def error(weight_OI, pruned_OI, x_TI):
    return ((pruned_OI.cpu().double() - weight_OI.double()) @ x_TI.double().T).square().sum().item()


@contextmanager
def no_waiting():
    """Within, torch raises where the host would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("block", [64, 96])  # 96: the last block of 256 inputs is narrower
def test_a_sweep_is_that_of_the_cpu(pattern, block):
    weight_OI, x_TI = case(outputs=96, inputs=256, tokens=1000)
    chosen = parse_pattern(pattern)
    expected_OI, expected_keep_OI = sweep(weight_OI, seen(x_TI, "cpu"), chosen, 0.01, block)
    swept_OI, keep_OI = sweep(weight_OI.cuda(), seen(x_TI, "cuda"), chosen, 0.01, block)
    assert iou(keep_OI, expected_keep_OI) >= 0.995  # of two that are equal up to rounding, either may stay
    assert error(weight_OI, swept_OI, x_TI) == pytest.approx(error(weight_OI, expected_OI, x_TI), rel=0.01)
    given_OI, _ = sweep(weight_OI.cuda(), seen(x_TI, "cuda"), expected_keep_OI.cuda(), 0.01, block)
    torch.testing.assert_close(given_OI.cpu(), expected_OI, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_replayed_on_other_numbers_a_sweep_is_the_same_as_the_first_time(pattern):
    weight_OI, x_TI = case()
    one = weight_OI.cuda(), seen(x_TI, "cuda"), parse_pattern(pattern)
    other = weight_OI.roll(1).cuda(), seen(x_TI.roll(1, dims=1), "cuda"), parse_pattern(pattern)
    once, _, again = (sweep(*which, 0.01, 32) for which in (one, other, one))
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


@pytest.mark.parametrize("choice", [*PATTERNS, "keep"])
def test_a_sweep_never_waits(choice):
    weight_OI, x_TI = case()
    weight_OI, stat = weight_OI.cuda(), seen(x_TI, "cuda")
    chosen = weight_OI > 0 if choice == "keep" else parse_pattern(choice)
    sweep(weight_OI, stat, chosen, 0.01, 24)  # the Gram is checked, its Cholesky factor made, the block recorded
    with no_waiting():
        sweep(weight_OI, stat, chosen, 0.01, 24)


def test_weights_of_bfloat16_are_swept_with_a_gram_of_float32():
    weight_OI, x_TI = case(outputs=64, inputs=256, tokens=1000, dtype=torch.bfloat16)
    stat = seen(x_TI, "cuda")
    assert stat.gram_II.dtype == torch.float32
    pruned_OI = SparseGPT().prune(weight_OI.cuda(), stat, NM(2, 4))
    assert pruned_OI.dtype == torch.bfloat16
    expected_OI = SparseGPT().prune(weight_OI, seen(x_TI, "cpu"), NM(2, 4))
    assert iou(pruned_OI != 0, expected_OI != 0) >= 0.99
    assert error(weight_OI, pruned_OI, x_TI) == pytest.approx(error(weight_OI, expected_OI, x_TI), rel=0.02)


@pytest.mark.parametrize("pattern", ["50%", "2:4"])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("name", PRUNERS)
def test_each_method_prunes_a_model_as_on_the_cpu(name, update, pattern):
    models = {"cpu": llama(), "cuda": llama().cuda()}
    rows = {
        device: prune_model(model, PRUNERS[name](), parse_pattern(pattern), batches(), update=UPDATES[update]())
        for device, model in models.items()
    }
    assert [row.zeros for row in rows["cuda"]] == [row.zeros for row in rows["cpu"]]
    keeps = {
        device: torch.cat([(linear.weight != 0).flatten() for linear in linears_of(find_blocks(model)[1]).values()])
        for device, model in models.items()
    }
    assert keeps["cuda"].is_cuda
    assert iou(*keeps.values()) >= 0.98  # a weight that goes otherwise changes what the next blocks see


@pytest.mark.parametrize("order", ["block", "group"])
def test_a_model_in_memory_goes_to_the_gpu_block_by_block(order):
    model = llama().to(torch.bfloat16)
    rows = prune_model(model, SparseGPT(), NM(2, 4), batches(), device="cuda", order=order)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert {row.sparsity for row in rows} == {0.5}


def test_between_two_blocks_hidden_states_stay_on_the_gpu():
    model = llama().cuda()
    walk = Walk(model, dissect(model), batches())
    with torch.no_grad():
        outputs = list(walk.step(0))
    assert all(waiting is output and waiting.is_cuda for waiting, output in zip(walk.hidden, outputs, strict=True))


@pytest.mark.parametrize("method", [Wanda(), SparseGPT()])
def test_a_packed_model_computes_with_the_2_of_4_kernels(method, tmp_path):
    model = llama(hidden_size=128, intermediate_size=256).to("cuda", torch.bfloat16)
    prune_model(model, method, NM(2, 4), batches())
    model.save_pretrained(tmp_path / "pruned")
    (tmp_path / "pruned/tokenizer.json").write_text("{}")
    pack_checkpoint(tmp_path / "pruned", tmp_path / "packed", NM(2, 4))
    packed = load_packed(tmp_path / "packed", device="cuda")
    weights = [linear.weight for linear in linears_of(find_blocks(packed)[1]).values()]
    assert all(isinstance(weight, torch.sparse.SparseSemiStructuredTensor) for weight in weights)
    ids_BT = batches((2, 24))[0].cuda()
    with torch.no_grad():
        torch.testing.assert_close(packed(ids_BT).logits, model(ids_BT).logits, atol=3e-2, rtol=3e-2)

"""The opponents of the benchmark are right: golden numbers, and a walk that is the model's own forward."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench import textbook, textbook_walk
from bench.agreement import iou, linear_by_linear, untied
from bench.sides import SAME_ORDER, TEXTBOOK, sides_of
from tasks.prune.weight.pattern import parse_pattern
from tests.cases import BLOCKS, batches, llama
from tests.golden import INPUTS, NORMS, WEIGHT

GOLDEN = {
    ("magnitude", "2:4"): "10101001 00111100 11000011 01010110",
    ("magnitude", "1:4"): "10001000 00010100 01000001 00010010",
    ("magnitude", "50%"): "10101001 00111100 01000111 11010010",
    ("magnitude", "50%@matrix"): "10101001 00011100 01000111 11010110",
    ("wanda", "2:4"): "10101100 01101100 11000101 11000110",
    ("wanda", "1:4"): "10001000 01000100 01000100 01000100",
    ("wanda", "50%"): "10001101 01101100 01001101 11010100",
    ("wanda", "50%@matrix"): "10101101 01001100 01001101 11010100",
}


@pytest.mark.parametrize(("method", "pattern"), GOLDEN)
def test_scores_keep_the_golden_weights(method, pattern):
    scores = {"magnitude": textbook.magnitude_score(WEIGHT), "wanda": textbook.wanda_score(WEIGHT, NORMS)}
    assert bits(textbook.keep(scores[method], parse_pattern(pattern))) == GOLDEN[method, pattern]


def test_sparsegpt_meets_the_golden_numbers():
    pruned = textbook.sparsegpt(WEIGHT, 2 * INPUTS.T @ INPUTS, parse_pattern("2:4"))
    assert bits(pruned != 0) == "10101001 00110101 11000101 01011010"
    row = torch.tensor([4, 0, 3.619717, 0, -6.306564, 0, 0, -0.623626], dtype=torch.float64)
    torch.testing.assert_close(pruned[0], row, atol=1e-6, rtol=0)
    assert ((pruned - WEIGHT) @ INPUTS.T).square().sum().item() == pytest.approx(316.564969, abs=1e-5)


def test_sparsegpt_keeps_exact_shares_over_several_blocks():
    weight, inputs = torch.randn(12, 300, dtype=torch.float64), torch.randn(400, 300, dtype=torch.float64)
    inputs[:, 7] = 0
    pruned = textbook.sparsegpt(weight, inputs.T @ inputs, parse_pattern("50%"))
    columns = (pruned != 0).split(textbook.BLOCK, dim=1)
    assert [int(part.sum()) for part in columns[1:]] == [12 * 128 // 2, 12 * 44 // 2]
    assert not pruned[:, 7].any()


def test_hessian_is_the_mean_over_tokens_however_they_are_batched():
    seen = textbook_walk.SparseGPT(torch.nn.Linear(8, 4))
    for part in INPUTS.float().split(3):
        seen.update(part)
    torch.testing.assert_close(seen.hessian_II.double(), 2 * INPUTS.T @ INPUTS / len(INPUTS), atol=1e-5, rtol=1e-5)


def test_the_walk_gives_every_linear_the_inputs_of_the_models_own_forward():
    model, ids = llama(), batches()
    walked: dict[str, Tensor] = {}
    names = {linear: name for name, linear in model.named_modules()}
    textbook_walk.walk(
        model, ids, textbook_walk.Wanda, lambda linear, seen: walked.update({names[linear]: seen.squares_I})
    )
    own = {name: textbook_walk.Wanda(model.get_submodule(name)) for name in walked}
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda _, x, __, seen=seen: seen.update(x[0].flatten(0, -2)))
        for name, seen in own.items()
    ]
    with torch.no_grad():
        for batch in ids:
            model(batch)
    for hook in hooks:
        hook.remove()
    assert len(walked) == 7 * BLOCKS
    for name, squares in walked.items():
        torch.testing.assert_close(squares, own[name].squares_I, msg=name)


@pytest.mark.parametrize("pattern", ["50%", "50%@matrix", "2:4"])
@pytest.mark.parametrize("method", textbook_walk.METHODS)
def test_both_sides_keep_the_same_weights(method, pattern):
    assert linear_by_linear(two_blocks(), method, parse_pattern(pattern), batches()) >= 0.999
    keeps = {}
    for name in (TEXTBOOK, SAME_ORDER):
        model = two_blocks()
        sides_of(method, pattern)[name](model, batches())
        linears = textbook_walk.linears_of(model.model.layers)
        keeps[name] = torch.cat([(linear.weight != 0).flatten() for linear in linears])
    assert iou(keeps[TEXTBOOK], keeps[SAME_ORDER]) >= 0.999


def test_untied_values_differ_and_hardly_move():
    values = torch.randint(-127, 128, (64, 64)) / 127
    distinct = untied(values)
    assert len(values.unique()) < 256
    assert len(distinct.unique()) > 0.95 * values.numel()
    torch.testing.assert_close(distinct, values, atol=3e-4, rtol=0)


def bits(keep: Tensor) -> str:
    return " ".join("".join("1" if kept else "0" for kept in row) for row in keep.tolist())


def two_blocks() -> PreTrainedModel:
    return llama(hidden_size=64, num_hidden_layers=2)

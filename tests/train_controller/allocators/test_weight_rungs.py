import pytest
import torch

from tasks.model.anatomy import dissect
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.budget import attention_linears, exact_sparsity
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.prune.weight.ria import RIA
from tasks.prune.weight.sparsegpt import SparseGPT
from tasks.prune.weight.wanda import Wanda
from tasks.train_controller.allocators.losses import window_losses
from tasks.train_controller.allocators.problem import Part
from tasks.train_controller.allocators.ranked import ranked
from tasks.train_controller.allocators.weight_rungs import allocation_of, weight_rungs
from tests.cases import FAMILIES, batches, llama, opt

PATTERNS = {"50%": Unstructured(0.5), "60%@matrix": Unstructured(0.6, "matrix"), "2:4": NM(2, 4), "4:8": NM(4, 8)}
TEXT = batches()


def made(model, pattern, pruner=None, text=TEXT):
    parts = ranked(model, pruner or Magnitude(), pattern, text)
    outlasted = {f"{each.part.block}.{name}": o for each in parts for name, o in each.outlasted.items()}
    return weight_rungs(model, pattern, outlasted)


def in_parts(model):
    """The linears of the attention and of the FFN of every block."""
    anatomy = dissect(model)
    for index, block in enumerate(anatomy.blocks):
        names = attention_linears(block)
        for kind in ("attention", "ffn"):
            linears = anatomy.linears(index).items()
            yield (
                Part(block=index, kind=kind),
                {n: each for n, each in linears if (n in names) == (kind == "attention")},
            )


def zeros_of(linears):
    return sum(int((linear.weight == 0).sum()) for linear in linears.values())


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("make", [llama, opt, FAMILIES["gpt_neox"]], ids=["llama", "opt", "gpt_neox"])
def test_what_goes_with_a_level_is_what_the_pruner_drops_at_its_pattern(make, pattern):
    model = make()
    rungs = made(model, pattern)
    levels = tuple((3 * place + 1) % (most + 1) for place, most in enumerate(rungs.problem.rungs))
    dense = {part: {n: each.weight.clone() for n, each in own.items()} for part, own in in_parts(model)}
    with rungs.applied(levels):
        for (part, linears), level in zip(in_parts(model), levels, strict=True):
            for name, linear in linears.items():
                at_level: Pattern = NM(pattern.m - level, pattern.m) if isinstance(pattern, NM) else pattern
                if isinstance(pattern, Unstructured):
                    at_level = Unstructured(level / 20, pattern.within)
                assert torch.equal(linear.weight, Magnitude().prune(dense[part][name], None, at_level))


def test_it_is_restored_to_the_bit_whatever_happens_within():
    model = llama()
    model.model.layers[0].mlp.up_proj.weight.data[0, :2] = torch.tensor([-0.0, 1e-40])
    before = {name: tensor.view(torch.int32).clone() for name, tensor in model.state_dict().items()}
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    rungs = made(model, Unstructured(0.5), Wanda())
    for levels in [(1,) * 6, (19,) * 6, (0, 3, 7, 0, 19, 2)]:
        with pytest.raises(RuntimeError, match="stopped"), rungs.applied(levels):
            raise RuntimeError("stopped")
        after = {name: tensor.view(torch.int32) for name, tensor in model.state_dict().items()}
        assert all(torch.equal(after[name], bits) for name, bits in before.items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers


@pytest.mark.parametrize("pruner", [Wanda(), RIA(), SparseGPT()], ids=str)
def test_any_pruner_that_scores_ranks_weights_and_more_rungs_lose_more(pruner):
    model = llama()
    rungs = made(model, Unstructured(0.5), pruner)
    for place, (part, linears) in enumerate(in_parts(model)):
        assert part == rungs.problem.parts[place]
        gone: dict[str, torch.Tensor] = {}
        for level in range(1, 20):
            with rungs.applied(tuple(level if each == place else 0 for each in range(6))):
                for name, linear in linears.items():
                    now = linear.weight == 0
                    assert now.sum(1).tolist() == [int(linear.in_features * level / 20)] * linear.out_features
                    assert not (gone.get(name, now) & ~now).any()
                    gone[name] = now


def test_the_first_block_is_scored_as_the_pruner_scores_it():
    """Behind it the walk is that of the dense model, where `prune_model` follows the pruned one."""
    model, pruned = llama(), llama()
    rungs = made(model, Unstructured(0.5), Wanda())
    prune_model(pruned, Wanda(), Unstructured(0.5), TEXT)
    with rungs.applied((10,) * 6):
        for mine, theirs in zip(model.model.layers[0].parameters(), pruned.model.layers[0].parameters(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_levels_arrive_as_zeros_of_the_pruned_model(make, pattern):
    """Part by part within one unit of each linear, and in all what the pattern alone would drop."""
    model, uniform = make(), make()
    problem = made(model, pattern).problem
    levels = problem.project([(0.2, 0.9, 0.6, 0.4)[place % 4] for place in range(len(problem.parts))])
    allocation = allocation_of(problem, pattern, levels)
    prune_model(model, Magnitude(), pattern, None, allocation)
    prune_model(uniform, Magnitude(), pattern, None)
    sizes, zeros, in_uniform = {}, {}, 0
    for (part, linears), (_, others) in zip(in_parts(model), in_parts(uniform), strict=True):
        sizes[part] = sum(linear.weight.numel() for linear in linears.values())
        zeros[part], in_uniform = zeros_of(linears), in_uniform + zeros_of(others)
    assert sum(zeros.values()) == in_uniform
    whole, step = (pattern.m, 0) if isinstance(pattern, NM) else (20, max(sizes.values()) / sum(sizes.values()) / 20)
    for (part, linears), level in zip(in_parts(model), levels, strict=True):
        rows = 2 * sum(linear.out_features for linear in linears.values()) * (whole == 20)
        assert abs(zeros[part] - level / whole * sizes[part]) <= rows + step * sizes[part]


def test_the_loss_at_levels_is_that_of_the_model_pruned_so():
    model, pruned = llama(), llama()
    pattern, ids_WT = Unstructured(0.5), torch.cat(batches((4, 20), seed=3))
    rungs = made(model, pattern)
    for index, (_, linears) in enumerate(in_parts(pruned)):
        for linear in linears.values():
            inputs = linear.in_features
            dropped = Unstructured(exact_sparsity(int(inputs * (index + 1) / 20), inputs))
            linear.weight.data = Magnitude().prune(linear.weight.data, None, dropped)
    with rungs.applied((1, 2, 3, 4, 5, 6)):
        assert window_losses(model, ids_WT) == pytest.approx(window_losses(pruned, ids_WT), abs=1e-6)


def test_what_cannot_be_searched_is_told():
    for pattern, pruner, text, message in [
        (Unstructured(0.0), Magnitude(), TEXT, r"^pattern: 0% given, which drops 0; .* 0.0\d+ to 0.95$"),
        (NM(4, 4), Magnitude(), TEXT, r"^pattern: 4:4 given, which drops 0; a search can divide 0.0\d+ to 0.75$"),
        (Unstructured(0.97), Magnitude(), TEXT, r"^pattern: 97% given, which drops 0.97; .* to 0.95$"),
        (NM(1, 1), Magnitude(), TEXT, r"^pattern: 1:1 given, a search needs n:m with an m of 2 or more"),
        (Unstructured(0.5), Wanda(), [], r"^batches: none given; Wanda\(\) needs calibration windows$"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(llama(), pattern, pruner, text)

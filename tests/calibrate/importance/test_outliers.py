import pytest
import torch

from tasks.calibrate import observers
from tasks.calibrate.importance.outliers import outlier_ratios
from tasks.model.anatomy import dissect
from tests.cases import FAMILIES, batches, llama


@torch.no_grad()
def by_brute_force(model, ids, threshold):
    """In float64, from the inputs that hooks see in the model's own forward, all of them kept."""
    anatomy = dissect(model)
    seen = {}

    def hook(key):
        return lambda _, inputs: seen.setdefault(key, []).append(inputs[0].flatten(0, -2).double())

    every = [(index, name) for index in range(len(anatomy.blocks)) for name in anatomy.linears(index)]
    handles = [anatomy.linears(i)[name].register_forward_pre_hook(hook((i, name))) for i, name in every]
    for ids_BT in ids:
        model(ids_BT)
    for handle in handles:
        handle.remove()
    ratios = []
    for index in range(len(anatomy.blocks)):
        scores = torch.cat(
            [
                (linear.weight.double().abs() * torch.cat(seen[index, name]).norm(dim=0)).flatten()
                for name, linear in anatomy.linears(index).items()
            ]
        )
        ratios.append((scores > threshold * scores.mean()).double().mean().item())
    return ratios


@pytest.mark.parametrize("threshold", [1.5, 3.0, 5.0])
@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_the_ratios_are_those_of_brute_force(make, threshold):
    model = make().double()
    ratios = outlier_ratios(model, batches(), threshold)
    assert ratios == by_brute_force(model, batches(), threshold)
    assert threshold > 1.5 or min(ratios) > 0


def test_the_model_its_mode_and_the_order_of_its_tokens_do_not_change():
    model = llama()
    model.train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = outlier_ratios(model, batches(), 3)
    assert outlier_ratios(model, batches()[::-1], 3) == first
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_tokens_shown_in_parts_count_alike(monkeypatch):
    expected = outlier_ratios(llama(), batches(), 3)
    monkeypatch.setattr(observers, "OBSERVED_TOKENS", 7)
    assert outlier_ratios(llama(), batches(), 3) == expected


def test_outliers_planted_in_a_block_raise_its_ratio_by_their_share():
    model = llama()
    dense = outlier_ratios(model, batches(), 20)
    assert dense == [0, 0, 0]
    linears = dissect(model).linears(1)
    with torch.no_grad():
        linears["mlp.up_proj"].weight[5, :4] = 100 * linears["mlp.up_proj"].weight.abs().mean()
    size = sum(linear.weight.numel() for linear in linears.values())
    assert outlier_ratios(model, batches(), 20) == [0, 4 / size, 0]


def test_a_block_of_zeros_has_no_outliers():
    model = llama()
    with torch.no_grad():
        for linear in dissect(model).linears(2).values():
            linear.weight.zero_()
    assert outlier_ratios(model, batches())[2] == 0


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
def test_bad_input_is_told(bad):
    with pytest.raises(ValueError, match=r"^threshold: .* given, valid is above 0$"):
        outlier_ratios(llama(), batches(), bad)
    for none in (None, []):
        with pytest.raises(ValueError, match=r"^batches: none given; outlier ratios need calibration windows$"):
            outlier_ratios(llama(), none)

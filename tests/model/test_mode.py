import pytest
import torch
from torch import nn

from tasks.model.mode import evaluating


def mixed() -> nn.Sequential:
    """In training, but for its last module."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.LayerNorm(4)).train()
    model[2].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_evaluating_turns_dropout_off_and_restores_the_mode_of_every_module():
    model, x_TI = mixed(), torch.ones(8, 4)
    with evaluating(model):
        assert modes(model) == [False] * 4
        assert torch.equal(model(x_TI), model(x_TI))
    assert modes(model) == [True, True, True, False]


def test_the_mode_is_restored_behind_an_error():
    model = mixed()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert modes(model) == [True, True, True, False]

"""What holds for every importance: the model stays as it is, bad input is told, larger models than memory work."""

import pytest
import torch

from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.importance import Importance
from tasks.calibrate.importance.leave_one_out import LeaveOneOut
from tasks.calibrate.importance.taylor import Taylor
from tasks.model.mapped import Mapped, mapped_model
from tests.cases import batches, llama, opt

GRADIENTS = ("taylor", "fisher")


def make(name):
    return LeaveOneOut(kinds=("head_groups", "blocks")) if name == "leave_one_out" else IMPORTANCES[name]()


def test_every_one_is_an_importance_and_frozen():
    for name, kind in IMPORTANCES.items():
        assert issubclass(kind, Importance)
        assert kind() == kind()
        with pytest.raises(AttributeError):
            make(name).kinds = ()


@pytest.mark.parametrize("name", IMPORTANCES)
def test_the_model_stays_as_it_is(name):
    model = opt()
    model.train()
    model.model.decoder.layers[1].eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
        parameter.grad = torch.full_like(parameter, number) if number % 3 == 1 else None
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    gradients = [parameter.grad for parameter in model.parameters()]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    first = make(name).score(model, batches())
    for of_block, again in zip(first, make(name).score(model, batches()), strict=True):
        assert all(torch.equal(score_U, again[kind]) for kind, score_U in of_block.items())

    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is then for parameter, then in zip(model.parameters(), gradients, strict=True))
    assert all((gradient == gradient.flatten()[0]).all() for gradient in gradients if gradient is not None)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_of_some_kinds_alone_only_what_costs_work_of_its_own_is_left_out():
    assert LeaveOneOut().only(("channels", "blocks")) == LeaveOneOut(kinds=("blocks", "channels"))
    assert LeaveOneOut(kinds=("ffn", "channels")).only(("channels",)) == LeaveOneOut(kinds=("channels",))
    assert Taylor().only(("channels",)) == Taylor()
    with pytest.raises(ValueError, match=r"^kinds: \('channels',\) given, valid are some of blocks, attention, ffn$"):
        IMPORTANCES["influence"](kinds=("channels",))


def test_flags_and_gradients_are_back_after_a_failure():
    model = llama()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    gradient, norm = model.lm_head.weight.grad, model.model.norm.weight
    norm.requires_grad_(False)
    with pytest.raises(IndexError):
        Taylor().score(model, [*batches(), torch.full((1, 4), 10_000)])
    assert model.lm_head.weight.grad is gradient
    assert [parameter for parameter in model.parameters() if not parameter.requires_grad] == [norm]
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not model.lm_head.weight)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


@pytest.mark.parametrize("name", GRADIENTS)
def test_no_more_than_one_gradient_exists_at_a_time(name):
    model, held = llama(), []

    def count(_):
        held.append(sum(parameter.grad is not None for parameter in model.parameters()))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(count)
    make(name).score(model, batches())
    assert len(held) >= 7 * 3
    assert set(held) == {1}


@pytest.mark.parametrize("name", IMPORTANCES)
def test_a_model_on_disk_is_scored_alike(name, tmp_path):
    llama().save_pretrained(tmp_path)
    expected = make(name).score(llama(), batches())
    with mapped_model(tmp_path) as model:
        found = make(name).score(model, batches())
        assert all(parameter.is_view for parameter in model.parameters() if isinstance(parameter, Mapped))
    for of_block, mapped in zip(expected, found, strict=True):
        assert all(torch.equal(score_U, mapped[kind]) for kind, score_U in of_block.items())


@pytest.mark.parametrize("name", IMPORTANCES)
def test_half_precision_is_summed_in_more(name):
    model = llama()
    for of_block, half in zip(
        make(name).score(model, batches()), make(name).score(model.bfloat16(), batches()), strict=True
    ):
        for kind, score_U in of_block.items():
            assert half[kind].dtype == torch.float64
            assert (half[kind] - score_U).norm() < 0.1 * score_U.norm() + 1e-3


@pytest.mark.parametrize("name", [name for name in IMPORTANCES if name != "weight_norm"])
def test_bad_batches_are_told(name):
    importance = make(name)
    for none in (None, []):
        with pytest.raises(ValueError, match=rf"^batches: none given; {type(importance).__name__} needs calibration"):
            importance.score(llama(), none)
    for bad in (torch.zeros(4, dtype=torch.long), torch.zeros(2, 4), torch.zeros(0, 4, dtype=torch.long)):
        with pytest.raises(
            ValueError, match=r"^batches: torch\.\w+ of shape .* given, valid are ids of shape \(windows, "
        ):
            importance.score(llama(), [*batches(), bad])


@pytest.mark.parametrize("name", ["flap", "taylor", "fisher", "leave_one_out"])
def test_windows_of_one_token_have_no_loss_and_no_variance(name):
    with pytest.raises(ValueError, match=r"^batches: windows of 1 tokens given, \w+ needs 2 or more$"):
        make(name).score(llama(), batches((3, 1)))


@pytest.mark.parametrize("name", [*GRADIENTS, "leave_one_out"])
def test_a_method_of_the_whole_model_runs_where_that_is(name):
    with pytest.raises(ValueError, match=r"^device: meta given, \w+ runs the whole model, which is on cpu$"):
        make(name).score(llama(), batches(), "meta")


@pytest.mark.parametrize("name", IMPORTANCES)
def test_a_broken_model_is_told(name):
    model = llama()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity in the"):
        make(name).score(model, batches())

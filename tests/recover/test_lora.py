"""Adapters: the merge keeps every zero, is what was trained, and leaves the model as it was found."""

import pytest
import torch
from safetensors import safe_open

from tasks.model.anatomy import find_blocks, linears_of
from tasks.recover.lora import Adapted, LoRA, adapters
from tasks.recover.recover import recover
from tasks.recover.recovery import Recovery
from tests.cases import FAMILIES, batches
from tests.recover.text import STEP, pruned_llama, some_windows, weights_of, zeros_of

RECOVERY = Recovery(tokens=12 * STEP, batch=8, rate=1e-2)
IDS = batches((2, 12))[0] % 17


def logits_of(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def randomise(installed) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for adapted in installed.values():
            adapted.up_OR.normal_(std=0.1)


def test_training_lowers_the_loss_and_the_merge_keeps_every_zero():
    model = pruned_llama()
    zeros, before = zeros_of(model), weights_of(model)
    with adapters(model, LoRA(rank=4)) as installed:
        done = recover(model, some_windows(), RECOVERY)
        trained = logits_of(model)
        assert all(adapted.up_OR.abs().max() > 0 for adapted in installed.values())
    assert done.curve[-1].loss < done.curve[0].loss
    after = zeros_of(model)
    assert all(torch.equal(zeros[name], after[name]) for name in zeros)
    assert not torch.equal(weights_of(model), before)
    assert torch.allclose(logits_of(model), trained, atol=1e-6)
    assert done.zeros == sum(int(each.sum()) for each in zeros.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_equals_adapted_in_every_family_also_without_zeros(family):
    model = FAMILIES[family]()
    some = linears_of(find_blocks(model)[1][0])
    pruned = next(iter(some.values()))
    with torch.no_grad():
        pruned.weight[:, ::2] = 0
    with adapters(model, LoRA(rank=3)) as installed:
        randomise(installed)
        assert len({adapted.keep_OI is None for adapted in installed.values()}) == 2
        adapted_logits = logits_of(model)
    assert torch.allclose(logits_of(model), adapted_logits, atol=1e-5)
    assert (pruned.weight[:, ::2] == 0).all()
    assert (pruned.weight[:, 1::2] != 0).all()


def test_the_update_is_the_scaled_product_on_the_keep():
    model = pruned_llama()
    linear = model.model.layers[0].self_attn.q_proj
    before = linear.weight.detach().clone().double()
    with adapters(model, LoRA(rank=2, alpha=5.0, linears=("q_proj",))) as installed:
        assert len(installed) == 3
        randomise(installed)
        adapted = installed["model.layers.0.self_attn.q_proj"]
        product = adapted.up_OR.detach().double() @ adapted.down_RI.detach().double()
    expected = (before + 5.0 / 2 * product) * (before != 0)
    assert torch.allclose(linear.weight.double(), expected, atol=1e-6)


def test_only_the_adapters_are_trained():
    model = pruned_llama()
    before = weights_of(model)
    with adapters(model, LoRA(rank=4)) as installed:
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == {f"{name}.{factor}" for name in installed for factor in ("up_OR", "down_RI")}
        recover(model, some_windows(), RECOVERY)
        originals = [each for name, each in model.named_parameters() if name not in trained]
        assert torch.equal(torch.cat([each.flatten() for each in originals]), before)


def test_after_a_failure_the_model_is_what_it_was():
    model = pruned_llama()
    model.model.embed_tokens.requires_grad_(False)
    before, modules = weights_of(model), list(model.modules())

    class FailedError(Exception):
        pass

    def fail() -> None:
        with adapters(model, LoRA()) as installed:
            randomise(installed)
            raise FailedError

    with pytest.raises(FailedError):
        fail()
    assert torch.equal(weights_of(model), before)
    assert list(model.modules()) == modules
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.embed_tokens.weight"]


def test_without_training_the_adapters_change_nothing():
    model = pruned_llama()
    expected, before = logits_of(model), weights_of(model)
    with adapters(model, LoRA()) as installed:
        assert all(isinstance(adapted, Adapted) for adapted in installed.values())
        assert torch.allclose(logits_of(model), expected, atol=1e-6)
    assert torch.equal(weights_of(model), before)


def test_a_resumed_training_of_adapters_is_the_undisturbed_one(tmp_path):
    windows, path = some_windows(), tmp_path / "state.safetensors"
    whole, parts = pruned_llama(), pruned_llama()
    with adapters(whole, LoRA(rank=4)):
        done = recover(whole, windows, RECOVERY)

    def stop(step) -> None:
        if step.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), adapters(parts, LoRA(rank=4)):
        recover(parts, windows, RECOVERY, checkpoint=path, checkpoint_every=2, report=stop)
    with adapters(parts, LoRA(rank=4)):
        assert recover(parts, windows, RECOVERY, checkpoint=path) == done
    assert torch.equal(weights_of(whole), weights_of(parts))
    with safe_open(path, "pt") as stored:
        assert {key.split("/")[1].rpartition(".")[2] for key in stored.keys()} == {"up_OR", "down_RI"}  # noqa: SIM118


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rank": 0}, "rank: 0 given"),
        ({"alpha": -1.0}, "alpha: -1.0 given"),
    ],
)
def test_settings_that_make_no_sense_get_one_line(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        LoRA(**changes)


def test_an_unknown_linear_is_named_beside_the_valid_ones():
    with (
        pytest.raises(ValueError, match=r"^linears: q given, valid are self_attn.q_proj, .*mlp.down_proj$"),
        adapters(pruned_llama(), LoRA(linears=("q", "self_attn.q_proj"))),
    ):
        pass

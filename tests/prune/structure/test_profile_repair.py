import pytest
import torch

from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.profile_repair import repaired_profile
from tasks.prune.structure.profiles import NONE, Profile, Profiles
from tests.cases import batches, llama

WINDOWS = batches((4, 16), (4, 16), (4, 16))


@pytest.mark.parametrize("blocks", [(), (0,)])
def test_a_repaired_profile_changes_readers_alone_and_errs_less(blocks):
    model = llama()
    dense, modules = digest_of_logits(model), list(model.named_modules())
    kept = {1: {"channels": torch.arange(20, 60), "head_groups": torch.tensor([1])}, 2: {"channels": torch.arange(30)}}
    plain = Profile(name="plain", kept=kept, blocks=blocks)
    profile = Profile(name="repaired", kept=kept, blocks=blocks)
    with_repair = repaired_profile(model, profile, WINDOWS, drift=0.0, settled=False)
    assert digest_of_logits(model) == dense
    assert list(model.named_modules()) == modules
    assert set(with_repair.weights) == {
        "model.layers.1.self_attn.o_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
    }
    profiles = Profiles(model)
    profiles.add(Profile(name="uncut", blocks=blocks) if blocks else Profile(name="uncut", ffn=(0,)))
    profiles.add(plain)
    profiles.add(with_repair)
    logits = {}
    for name in ("uncut" if blocks else NONE, "plain", "repaired"):
        with profiles.using(name), torch.no_grad():
            logits[name] = model(WINDOWS[0]).logits
    expected = logits.pop("uncut" if blocks else NONE)
    errors = {name: (each - expected).square().mean() for name, each in logits.items()}
    assert errors["repaired"] < 0.9 * errors["plain"]


def test_the_model_is_uncut_again_where_a_repair_fails():
    model = llama()
    modules = list(model.named_modules())
    profile = Profile(name="new", kept={1: {"channels": torch.arange(20)}}, blocks=(0,))
    with pytest.raises(ValueError, match="batches: 1 given, repair needs 2 or more"):
        repaired_profile(model, profile, WINDOWS[:1])
    assert list(model.named_modules()) == modules

"""Profiles in a folder: only what they change, the same bytes each time, refused upon another model."""

import pytest
import torch
from safetensors.torch import load_file

from tasks.model.anatomy import find_blocks
from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.profile_folder import load_profiles, save_profiles
from tests.cases import FAMILIES, llama
from tests.prune.structure.profiled import IDS, built

HASH = "a" * 64


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt", "gemma3"])
def test_a_folder_gives_the_same_profiles_and_holds_only_what_they_change(family, tmp_path):
    model = FAMILIES[family]()
    profiles = built(model)
    with profiles.using("heads"), torch.no_grad():
        find_blocks(model)[1][0].self_attn.v_proj.weight.mul_(0.5)
    digests = {}
    for name in profiles.names:
        with profiles.using(name):
            digests[name] = digest_of_logits(model, IDS)
    save_profiles(profiles, HASH, tmp_path / "a")
    loaded = load_profiles(FAMILIES[family](), HASH, tmp_path / "a")
    assert loaded.names == profiles.names
    for name in loaded.names:
        with loaded.using(name):
            assert digest_of_logits(loaded.model, IDS) == digests[name]
    save_profiles(loaded, HASH, tmp_path / "b")
    for file in ("profiles.json", "profiles.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    stored = sum(tensor.nbytes for tensor in load_file(tmp_path / "a" / "profiles.safetensors").values())
    units = 1 + 1 + 40 + 39 + 38 + 9 + 1  # that stay, as the cuts name them
    assert stored == 4 * (units + 8 * 32)  # and v of one group


def test_profiles_of_another_model_or_damaged_are_refused(tmp_path):
    profiles = built(llama())
    save_profiles(profiles, HASH, tmp_path)
    with pytest.raises(ValueError, match=f"is of model {HASH}, valid is one of bbb"):
        load_profiles(llama(), "b" * 64, tmp_path)
    whole = (tmp_path / "profiles.safetensors").read_bytes()
    (tmp_path / "profiles.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r"profiles.safetensors cannot be read"):
        load_profiles(llama(), HASH, tmp_path)
    (tmp_path / "profiles.safetensors").unlink()
    with pytest.raises(ValueError, match=r"profiles.safetensors cannot be read"):
        load_profiles(llama(), HASH, tmp_path)
    (tmp_path / "profiles.json").write_text('{"format": "espalier profiles", "version": 2}')
    with pytest.raises(ValueError, match="espalier profiles of version 2, valid is espalier profiles of version 1"):
        load_profiles(llama(), HASH, tmp_path)
    with pytest.raises(ValueError, match=r"profiles.json cannot be read"):
        load_profiles(llama(), HASH, tmp_path / "elsewhere")

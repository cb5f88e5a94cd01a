import hashlib
import json
import math
import os
import shutil
import time

import httpx2
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import BloomConfig, Gemma3Config, PreTrainedTokenizerFast
from transformers.utils import logging

from tasks.model import folder as folders
from tasks.model import load
from tasks.model.load import (
    BUILTIN,
    check_folder,
    check_tokenizer,
    context_of,
    fingerprint,
    load_model,
    load_tokenizer,
    model_from,
    resolve,
    save_model,
    vocabulary_of,
    weight_bytes,
)
from tests.cases import llama


def write_tokenizer(folder, words):
    vocabulary = {f"word{index}": index for index in range(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="word0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="word0").save_pretrained(folder)


@pytest.fixture
def folder(tmp_path):
    llama().save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model", 97)
    return tmp_path / "model"


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def one_line(said, call, *arguments):
    with pytest.raises(ValueError, match=said) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loads_what_was_saved_in_its_own_dtype(tmp_path, dtype):
    model = llama(dtype=dtype).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.dtype == dtype
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_a_model_from_weights_in_memory_is_the_model_from_the_folder(folder):
    ids = torch.arange(20)[None]
    from_memory = model_from(load_file(folder / "model.safetensors"), folder)
    with torch.no_grad():
        assert torch.equal(from_memory(ids).logits, load_model(folder)(ids).logits)
    assert from_memory.generation_config.to_dict() == load_model(folder).generation_config.to_dict()


def test_resolve(folder, monkeypatch):
    assert resolve(str(folder)) == folder
    assert resolve(folder) == folder
    assert resolve("builtin") == BUILTIN
    one_line("neither a folder here, nor a hub name", resolve, "no-such-model")


def test_a_hub_name_without_a_network_fails_at_once(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    started = time.perf_counter()
    said = one_line("the hub does not answer", resolve, "espalier/no-such-model")
    assert "hf download espalier/no-such-model" in said
    assert time.perf_counter() - started < 30  # the hub client's own time-outs take minutes


@pytest.mark.parametrize(("status", "kind"), [(503, ConnectionError), (429, ConnectionError), (404, ValueError)])
def test_a_failure_of_the_hub_that_may_pass_is_told_from_a_refusal(status, kind, monkeypatch):
    def fail(*name, **options):
        answer = httpx2.Response(status, request=httpx2.Request("GET", "https://hub"))
        raise HfHubHTTPError(f"{status}\nand more", response=answer)

    monkeypatch.setattr(load, "hub_answers", lambda: True)
    monkeypatch.setattr(load, "snapshot_download", fail)
    with pytest.raises(kind, match=rf"^model: espalier/no-such-model.*the hub.*: {status}$"):
        resolve("espalier/no-such-model")


def test_a_whole_folder_passes(folder):
    check_folder(folder)
    check_tokenizer(load_tokenizer(folder), load_model(folder).config)
    assert weight_bytes(folder) == (folder / "model.safetensors").stat().st_size


def test_shards_pass_until_one_is_missing_or_empty(tmp_path):
    llama().save_pretrained(tmp_path, max_shard_size="40KB")
    write_tokenizer(tmp_path, 97)
    check_folder(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert weight_bytes(tmp_path) == sum(shard.stat().st_size for shard in shards)
    save_file({}, shards[0])
    one_line("which the index places there", check_folder, tmp_path)
    shards[0].unlink()
    assert shards[0].name in one_line(f"lacks 1 of {len(shards)} shards", check_folder, tmp_path)


def cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without(*names):
    def remove(folder):
        for name in names:
            (folder / name).unlink()

    return remove


def with_value(value):
    def spoil(folder):
        rewrite(folder, lambda weights: weights["model.layers.1.mlp.up_proj.weight"][3].fill_(value))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "is not a folder"),
        (without("config.json"), "has no config.json$"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (without("model.safetensors"), "has no weights"),
        (pickled, "safetensors only"),
        (cut_short, "is damaged"),
        (with_value(math.nan), "model.layers.1.mlp.up_proj.weight in .* holds NaN"),
        (with_value(-math.inf), "model.layers.1.mlp.up_proj.weight in .* holds NaN or infinite"),
        (without("tokenizer.json"), "has no tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_is_named_in_one_line(folder, spoil, said):
    spoil(folder)
    one_line(said, check_folder, folder)


def test_weights_that_do_not_fit_are_refused_not_made_up(folder):
    rewrite(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(31)}))
    one_line("mismatched: model.norm.weight", load_model, folder)
    rewrite(folder, lambda weights: weights.pop("model.norm.weight"))
    one_line("missing: model.norm.weight", load_model, folder)
    rewrite(folder, lambda weights: weights.update({"model.norm.weight": torch.ones(32), "stray": torch.ones(2)}))
    one_line("unexpected: stray", load_model, folder)


def test_a_configuration_that_is_no_language_model_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    one_line("config.json in .* cannot be used", load_model, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    one_line("vit is no causal language model", load_model, folder)


def test_a_tokenizer_beyond_the_vocabulary_is_refused(tmp_path):
    write_tokenizer(tmp_path, 98)
    one_line(
        "'word97' has id 97, the model's vocabulary is 0 to 96",
        check_tokenizer,
        load_tokenizer(tmp_path),
        llama().config,
    )


def test_transformers_says_nothing_while_a_tokenizer_is_loaded(folder, monkeypatch):
    heard, before = [], logging.get_verbosity()
    read = load.AutoTokenizer.from_pretrained

    def listening(*given, **how):
        heard.append(logging.get_verbosity())
        return read(*given, **how)

    monkeypatch.setattr(load.AutoTokenizer, "from_pretrained", listening)
    assert load_tokenizer(folder)("word3")["input_ids"] == [3]
    (folder / "tokenizer.json").write_text("{")
    one_line("the tokenizer in .* cannot be read", load_tokenizer, folder)
    assert heard == [logging.ERROR, logging.ERROR]
    assert logging.get_verbosity() == before != logging.ERROR


def test_saving_gives_the_same_bytes_wherever_the_model_came_from(folder, tmp_path):
    save_model(load_model(folder), folder, tmp_path / "once")
    shutil.copytree(folder, tmp_path / "moved")
    save_model(load_model(tmp_path / "moved"), folder, tmp_path / "again")
    once = {file.name: file.read_bytes() for file in (tmp_path / "once").iterdir()}
    assert once == {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(once)
    check_folder(tmp_path / "once")


def test_the_fingerprint_is_names_lengths_and_bytes(folder):
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    assert fingerprint(folder) == digest.hexdigest()


def test_the_fingerprint_follows_the_model_and_nothing_else(folder, tmp_path):
    before = fingerprint(folder)
    (folder / "README.md").write_text("about")
    shutil.copytree(folder, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == before
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        kept = (folder / file).read_bytes()
        (folder / file).write_bytes(kept[:-1] + b"#")
        assert fingerprint(folder) != before, file
        (folder / file).write_bytes(kept)
    assert fingerprint(folder) == before


def test_weights_that_nobody_loads_do_not_count(folder, tmp_path):
    size, name = weight_bytes(folder), fingerprint(folder)
    for stray in ("consolidated.safetensors", "adapter_model.safetensors"):
        shutil.copyfile(folder / "model.safetensors", folder / stray)
    assert (weight_bytes(folder), fingerprint(folder)) == (size, name)
    packed = tmp_path / "packed"
    packed.mkdir()
    for file, content in (("packing.json", "{}"), ("packed-00001.safetensors", "1234"), ("model.safetensors", "12")):
        (packed / file).write_text(content)
    assert weight_bytes(packed) == 4
    before = fingerprint(packed)
    (packed / "packed-00001.safetensors").write_text("1235")
    assert fingerprint(packed) != before


def date_back(folder, seconds=60):
    for file in folder.iterdir():
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


def test_what_was_read_is_read_again_only_when_it_changes(folder, monkeypatch):
    date_back(folder)
    before = fingerprint(folder)
    check_folder(folder)
    with monkeypatch.context() as blocked:
        blocked.setattr(folders.hashlib, "sha256", None)
        blocked.setattr(folders, "safe_open", None)
        assert fingerprint(folder) == before
        check_folder(folder)
    with_value(math.nan)(folder)
    assert fingerprint(folder) != before
    one_line("holds NaN", check_folder, folder)
    one_line("holds NaN", check_folder, folder)  # a refusal is not remembered as a pass


def test_the_sizes_are_those_of_the_part_that_reads_text():
    both = Gemma3Config(text_config={"vocab_size": 300, "max_position_embeddings": 64})
    assert (vocabulary_of(both), context_of(both)) == (300, 64)
    assert (vocabulary_of(llama().config), context_of(llama().config)) == (97, 64)
    assert context_of(BloomConfig()) is None

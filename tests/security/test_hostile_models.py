"""A model's folder that a stranger made: it is refused in one line, runs nothing, and reads no other place."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tasks.model.folder import INDEX, check_folder, tensor_names
from tasks.model.load import load_config, load_model, load_tokenizer
from tasks.prune.pack import pack_checkpoint
from tasks.prune.unpack import INDEX as PACKING
from tasks.prune.unpack import load_packed
from tests.cases import llama

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    llama(num_hidden_layers=1).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A copy to spoil, beside a whole one that it must not lead to."""
    shutil.copytree(sound, tmp_path / "other")
    return Path(shutil.copytree(sound, tmp_path / "model"))


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    for name in ("packed", "other-packed"):
        (tmp_path / name).mkdir()
        pack_checkpoint(folder, tmp_path / name, {})
    return tmp_path / "packed"


def open_as_a_flow_does(folder: Path) -> None:
    check_folder(folder)
    load_config(folder)
    load_tokenizer(folder)
    load_model(folder)


def refused(call: Callable[[Path], object], folder: Path, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        call(folder)
    assert "\n" not in str(error.value)


def header(text: str, claimed: int | None = None) -> Spoil:
    length = len(text) if claimed is None else claimed
    return lambda folder: (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + text.encode())


@pytest.mark.parametrize(
    "spoil",
    [
        header("{}", claimed=2**63 - 1),
        header("{}", claimed=99_000_000),
        header('{"a":' * 100_000),
        header('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        header('{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
        header('{"a":{"dtype":"PICKLE","shape":[0],"data_offsets":[0,0]}}'),
        header("", claimed=0),
        lambda folder: os.truncate(folder / "model.safetensors", 1000),
    ],
    ids=["too large", "longer than the file", "deep", "beyond the end", "overflow", "dtype", "empty", "truncated"],
)
def test_a_header_that_lies_is_damage(folder, spoil):
    spoil(folder)
    refused(open_as_a_flow_does, folder, "model.safetensors is damaged")


def index(names_of: Callable[[list[str]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        names = tensor_names(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        (folder / INDEX).write_text(json.dumps(names_of(names)))

    return spoil


@pytest.mark.parametrize(
    ("names_of", "said"),
    [
        (lambda names: {"weight_map": dict.fromkeys(names, "../other/model.safetensors")}, "names the file '../other"),
        (lambda names: {"weight_map": dict.fromkeys(names, "/etc/passwd")}, "names the file '/etc/passwd'"),
        (lambda names: {"weight_map": dict.fromkeys(names, "evil.bin")}, "names the file 'evil.bin'"),
        (lambda names: {"weight_map": dict.fromkeys(names, 7)}, "names the file 7"),
        (lambda names: {"weight_map": names}, "no weight_map"),
        (lambda names: {"weight_map": {}}, "no weight_map"),
        (lambda names: names, "holds list"),
    ],
)
def test_an_index_leads_to_no_other_place(folder, names_of, said):
    index(names_of)(folder)
    refused(open_as_a_flow_does, folder, said)


def config(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def write(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (write("config.json", "[" * 200_000), "nested too deeply"),
        (write("config.json", "null"), "holds NoneType"),
        (config(num_hidden_layers=10**9), "num_hidden_layers 1000000000 given"),
        (config(vocab_size=10**12), "parameters, its weights are"),
        (config(num_attention_heads=0), "cannot be used: ZeroDivisionError"),
        (config(hidden_size="wide"), "cannot be used: .*'hidden_size'"),
        (config(dtype="os.system"), "cannot be used"),
        (config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"),
        (config(attn_implementation="a-stranger/kernels"), "asks for code from the hub, 'a-stranger/kernels'"),
        (write("tokenizer.json", "[" * 200_000), "the tokenizer in .* cannot be read"),
        (write("tokenizer.json", "[]"), "the tokenizer in .* cannot be read"),
        (write("tokenizer_config.json", "[]"), "the tokenizer in .* cannot be read"),
    ],
)
def test_a_configuration_is_not_taken_at_its_word(folder, spoil, said):
    spoil(folder)
    refused(open_as_a_flow_does, folder, said)


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config(model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})(folder)
    refused(open_as_a_flow_does, folder, "brings code of its own, which is not run here")
    classes = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.T", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(classes))
    refused(load_tokenizer, folder, "contains custom code")
    assert not ran.exists()


def test_links_out_of_the_folder_are_refused_those_of_the_hub_are_not(folder, tmp_path):
    (folder / "merges.txt").symlink_to("/etc/passwd")  # no tokenizer reads it, yet it would be copied and published
    refused(check_folder, folder, "merges.txt is a link out of its folder, to /etc/passwd")
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "main", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(tmp_path / "other", blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    check_folder(snapshot)
    (tmp_path / "mine").symlink_to(tmp_path / "other")
    check_folder(tmp_path / "mine")  # the folder itself may be a link


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"file": "../other-packed/packed-00001.safetensors"}, "names the file '../other-packed"),
        ({"file": None}, "names the file None"),
        ({"format": "pickle"}, "does not say how"),
        ({"dtype": "load"}, "does not say how"),
        ({"shape": [-1, 32]}, "does not say how"),
        ({"options": {"evil": 1}}, "is damaged"),
        ({"rank": 4}, "is damaged"),
        ({"sha256": "0" * 64}, "are not those that were written"),
    ],
)
def test_the_index_of_a_packed_folder_is_not_taken_at_its_word(packed, changes, said):
    written = json.loads((packed / PACKING).read_text())
    name = next(name for name in written["tensors"] if "q_proj" in name)
    written["tensors"][name] |= changes
    (packed / PACKING).write_text(json.dumps(written))
    refused(load_packed, packed, said)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(open_as_a_flow_does, folder, "safetensors only")

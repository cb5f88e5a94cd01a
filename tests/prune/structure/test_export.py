import json
import os
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import FalconConfig, FalconForCausalLM, GPTJConfig, GPTJForCausalLM

from tasks.model.cost import Widths, sizes_of
from tasks.model.load import BUILTIN, check_folder, load_model
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.export import FORMS, export_model, forms_of
from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.width import slice_units
from tests.cases import BLOCKS, FAMILIES, batches, gemma, gpt_neox, llama, opt, qwen2, qwen3

SCRIPT = Path(__file__).with_name("load_exports.py")
IDS = batches((2, 20))[0]
TOKENS = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
TOLERANCE = 1e-5


def indices(*kept):
    return torch.tensor(kept, dtype=torch.int64)


def uneven(model):
    """Every kind of cut, of each block another; none of heads inside groups where a group has one."""
    units = units_of(model)
    kept = {0: {"channels": torch.arange(9)}, 1: {"head_groups": indices(1)}, 2: {"channels": torch.arange(3, 40)}}
    if units[2].query_heads:
        kept[2]["query_heads"] = indices(0, 3)
    slice_units(model, kept, units)
    slice_blocks(model, attention=[0], ffn=[1])


def uneven_ffn(model):
    """What a family can have whose heads are as wide as the model says."""
    slice_units(model, {1: {"channels": torch.arange(9)}, 2: {"channels": torch.arange(3, 40)}})
    slice_blocks(model, attention=[0], ffn=[2])


def narrow(model):
    """FFNs of two widths."""
    slice_units(model, {0: {"channels": torch.arange(9)}, 2: {"channels": torch.arange(3, 40)}})


def even_ffn(model):
    """The same number of channels of every block, of each other ones."""
    slice_units(model, {block: {"channels": torch.arange(block, block + 20)} for block in range(BLOCKS)})


def even(model):
    """Half of all heads, the same channels, a block less."""
    heads = {} if model.config.model_type == "opt" else {"head_groups": indices(0)}
    blocks = range(model.config.num_hidden_layers)
    slice_units(model, {block: heads | {"channels": torch.arange(block, block + 20)} for block in blocks})
    slice_blocks(model, blocks=[1])


def in_bfloat16(model):
    """As it is loaded: the frequencies of the rotary embedding stay float32."""
    for parameter in model.parameters():
        parameter.data = parameter.to(torch.bfloat16)
    return model


def attentions(model):
    """As a cut in depth leaves it."""
    slice_blocks(model, attention=[0, 2])


def ffns(model):
    slice_blocks(model, ffn=[1, 2])


def gptj():
    """Its configuration stores the number of heads by a name of its own."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "n_embd": 32, "n_layer": BLOCKS, "n_head": 4, "rotary_dim": 4}
    config = GPTJConfig(bos_token_id=1, eos_token_id=2, **shape)
    return GPTJForCausalLM(config).eval()


def falcon():
    """Its configuration computes the width of a head, which cannot be stated."""
    config = FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=BLOCKS, num_attention_heads=4)
    return FalconForCausalLM(config).eval()


CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
CASES = {
    f"{family} {form} {cut.__name__}": (FAMILIES[family], form, cut)
    for family in CUTTABLE
    for form, cut in (("uniform", even), ("padded", uneven), ("per_layer", uneven))
}
CASES["tied padded uneven"] = (lambda: llama(tie_word_embeddings=True), "padded", uneven)
CASES["tied per_layer uneven"] = (lambda: llama(tie_word_embeddings=True), "per_layer", uneven)
CASES["bfloat16 per_layer uneven"] = (lambda: in_bfloat16(qwen2()), "per_layer", uneven)
CASES["gpt_neox per_layer depth"] = (gpt_neox, "per_layer", lambda model: slice_blocks(model, attention=[0]))
CASES["gpt_neox uniform channels"] = (gpt_neox, "uniform", even_ffn)
CASES["gpt_neox padded channels"] = (gpt_neox, "padded", narrow)
CASES["gpt_neox per_layer channels"] = (gpt_neox, "per_layer", narrow)
CASES |= {f"{make.__name__} padded attentions": (make, "padded", attentions) for make in (llama, opt)}
CASES |= {f"llama {form} ffns": (llama, form, ffns) for form in ("padded", "per_layer")}
CASES["gptj per_layer attentions"] = (gptj, "per_layer", attentions)
CASES["falcon per_layer attentions"] = (falcon, "per_layer", attentions)
CASES["qwen3 per_layer attentions"] = (qwen3, "per_layer", attentions)
CASES["llama uniform dense"] = (llama, "uniform", lambda model: None)


def cut_model(case):
    make, form, cut = CASES[case]
    model = make()
    cut(model)
    return model, form


def venv_without_this_project(folder):
    """The interpreter of a fresh venv. It has the packages of this one by a .pth; those in there, as that of an
    editable install, are not followed."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """All cases exported, those that shall not load beside them, and what a process without this project says."""
    root = tmp_path_factory.mktemp("exports")
    (root / "no tokenizer").mkdir()
    (root / "bad").mkdir()
    for case in CASES:
        model, form = cut_model(case)
        export_model(model, form, root / "no tokenizer", root / "good" / case)
    for form in FORMS:
        truncate(
            root / "good" / f"llama {form} {'even' if form == 'uniform' else 'uneven'}",
            root / "bad" / f"truncated {form}",
        )
    shutil.copytree(root / "good" / "llama per_layer uneven", root / "bad" / "untrusted")
    save_file({"ids": IDS}, root / "ids.safetensors")
    (root / "elsewhere").mkdir()
    done = subprocess.run(
        [venv_without_this_project(root / "venv"), "-I", SCRIPT, root],
        cwd=root / "elsewhere",
        env=os.environ | {"HF_MODULES_CACHE": str(root / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root / "good", json.loads(done.stdout.splitlines()[-1])


def truncate(folder, copy):
    shutil.copytree(folder, copy)
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    tensors[name] = tensors[name][:, 1:].contiguous()
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})


def test_the_other_process_could_not_import_this_project(exports):
    folder, said = exports
    assert said["venv"] == str(folder.parent / "venv")
    assert said["ours"] == []


@pytest.mark.parametrize("case", CASES)
def test_an_export_is_the_cut_model_wherever_it_is_loaded(exports, case):
    folder, seen = exports[0] / case, exports[1]["loaded"][case]
    model, form = cut_model(case)
    assert seen["class"] == ("PerLayer" if form == "per_layer" else "") + type(model).__name__
    assert seen["dtype"] == str(model.dtype)
    with torch.no_grad():
        expected = model(IDS).logits
        tokens = model.generate(IDS[:, :6], use_cache=False, **TOKENS).tolist()
    torch.testing.assert_close(load_file(folder / "logits.safetensors")["logits"], expected, rtol=0, atol=TOLERANCE)
    assert seen["uncached"] == tokens
    assert seen["cached"] == tokens


@pytest.mark.parametrize("case", CASES)
def test_its_parameters_are_those_that_the_widths_cost(exports, case):
    model, form = cut_model(case)
    frame, widths = sizes_of(model)
    if form == "padded":
        most = [max(getattr(each, part) for each in widths) for part in ("kv_heads", "channels")]
        ratio = max(each.query_heads // each.kv_heads for each in widths if each.kv_heads)
        widths = [Widths(query_heads=most[0] * ratio, kv_heads=most[0], channels=most[1])] * len(widths)
    assert exports[1]["loaded"][case]["parameters"] == frame.cost(widths, tokens=1).parameters


@pytest.mark.parametrize("case", ["llama per_layer uneven", "gemma3 per_layer uneven"])
def test_a_per_layer_model_can_be_set_to_other_attention_and_saved_again(exports, case):
    seen = exports[1]["loaded"][case]
    assert seen["eager"] < TOLERANCE
    assert seen["saved again"]
    assert all(seen["attentions"])


@pytest.mark.parametrize("form", FORMS)
def test_a_shape_that_does_not_fit_is_refused_and_not_made_up(exports, form):
    assert "`ignore_mismatched_sizes` to `False`, thus raising" in exports[1]["refused"][f"truncated {form}"]


def test_code_of_the_folder_is_run_only_where_that_is_asked_for(exports):
    assert "trust_remote_code=True" in exports[1]["refused"]["untrusted"]


@pytest.mark.parametrize("case", CASES)
def test_stock_configurations_state_one_width(exports, case):
    config = json.loads((exports[0] / case / "config.json").read_text())
    stock = "per_layer" not in case
    assert (exports[0] / case / "modeling_per_layer.py").is_file() != stock
    assert ("per_layer_config" not in config) == ("auto_map" not in config) == stock
    assert all(isinstance(config[name], int | None) for name in config if name.startswith("num_"))


@pytest.mark.parametrize("family", CUTTABLE)
def test_exporting_leaves_the_model_as_it_is(family, tmp_path):
    model = FAMILIES[family]()
    uneven(model)
    before, modules = digest_of_logits(model), list(model.named_modules())
    config = model.config.to_dict()
    export_model(model, "padded", tmp_path, tmp_path / "padded")
    assert digest_of_logits(model) == before
    assert list(model.named_modules()) == modules
    assert model.config.to_dict() == config


def test_padding_goes_on_to_the_next_number_of_heads_that_the_class_can_have(tmp_path):
    model = llama(num_attention_heads=8, num_key_value_heads=4, head_dim=4)
    slice_units(model, {block: {"head_groups": indices(0, 1, 3)} for block in range(BLOCKS)})
    assert forms_of(model) == ["padded", "per_layer"]  # 6 heads do not divide a width of 32
    export_model(model, "padded", tmp_path, tmp_path / "padded")
    config = json.loads((tmp_path / "padded" / "config.json").read_text())
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (8, 4, 4)


def test_a_whole_folder_is_written_that_loads_here_as_any_model_does(tmp_path):
    model = load_model(BUILTIN)
    slice_units(model, {0: {"channels": torch.arange(64)}, 1: {"head_groups": indices(0)}})
    export_model(model, "padded", BUILTIN, tmp_path / "padded")
    check_folder(tmp_path / "padded")
    assert model.generation_config.to_dict() == load_model(tmp_path / "padded").generation_config.to_dict()
    assert digest_of_logits(load_model(tmp_path / "padded")) == digest_of_logits(model)
    assert (tmp_path / "padded" / "tokenizer.json").read_bytes() == (BUILTIN / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("make", "cut", "form", "message"),
    [
        (llama, ffns, "uniform", "form: uniform cannot express this llama: block 1 has no mlp; valid is padded, per_l"),
        (llama, uneven, "uniform", "form: uniform cannot express this llama: block 0 has no attention; valid is pad"),
        (
            gemma,
            lambda model: slice_units(model, {1: {"channels": indices(1, 5)}}),
            "uniform",
            "block 0 has 4 query heads, 2 KV heads and 64 channels, block 1 4 query heads, 2 KV heads and 2 channels; "
            "valid is padded, per_layer",
        ),
        (
            gpt_neox,
            lambda model: slice_blocks(model, attention=[1]),
            "padded",
            "form: padded cannot express this gpt_neox: GPTNeoXForCausalLM has .*, where the cut model has nothing; "
            "valid is per_layer",
        ),
        (
            falcon,
            attentions,
            "padded",
            "this falcon: FalconForCausalLM has .*, where the cut model has nothing; valid is per_layer",
        ),
        (llama, even, "stock", "form: stock given, valid is uniform, padded, per_layer"),
    ],
)
def test_a_form_that_cannot_express_a_model_names_those_that_can(make, cut, form, message, tmp_path):
    model = make()
    cut(model)
    with pytest.raises(ValueError, match=message):
        export_model(model, form, tmp_path, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()

"""Run as a script, where this project cannot be imported: loads folders of transformers and says what they do."""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

TOKENS = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}


def load(folder):
    # trust_remote_code: a per-layer export is loaded by the modeling file in it, which this project has just written
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code="per_layer" in folder.name).eval()


@torch.no_grad()
def seen(folder, ids):
    model = load(folder)
    logits = model(ids).logits
    save_file({"logits": logits}, folder / "logits.safetensors")
    found = {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype),
        "cached": model.generate(ids[:, :6], use_cache=True, **TOKENS).tolist(),
        "uncached": model.generate(ids[:, :6], use_cache=False, **TOKENS).tolist(),
    }
    if folder.name in ("llama per_layer uneven", "gemma3 per_layer uneven"):
        model.save_pretrained(folder / "per_layer")
        model.set_attn_implementation("eager")
        eager = model(ids, output_attentions=True)
        found["eager"] = (eager.logits - logits).abs().max().item()
        found["attentions"] = [each is not None for each in eager.attentions]
        found["saved again"] = torch.equal(load(folder / "per_layer")(ids).logits, logits)
    return found


def refusal(folder):
    try:  # as `load`, but "untrusted" is a per-layer export too, whose code is not allowed to run
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=folder.name.startswith("truncated per_layer"))
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


root = Path(sys.argv[1])
ids = load_file(root / "ids.safetensors")["ids"]
loaded = {folder.name: seen(folder, ids) for folder in sorted((root / "good").iterdir())}
refused = {folder.name: refusal(folder) for folder in sorted((root / "bad").iterdir())}
ours = [name for name in ("tasks", "flows") if importlib.util.find_spec(name)]
print(json.dumps({"loaded": loaded, "refused": refused, "ours": ours, "venv": sys.prefix}))

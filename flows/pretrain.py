"""How the built-in model was made: `python -m flows.pretrain --minutes 60`. Interrupted, the same command goes on.

The docstrings of everything installed (`docs:train`) become a byte-level BPE and windows of 512 tokens; a small Llama
is trained on them; what it learned is measured on `docs:evaluation`, none of whose docstrings it has seen. The
calibration part serves to watch it meanwhile.

The result is `pretrain/model/` of the artifacts folder. To ship it, copy that folder over `tasks/model/builtin/`.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from prefect import flow
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from flows.environment import use_project_settings
from flows.server import prefect_server
from tasks.data import docs
from tasks.data.documents import count_bytes, hash_texts
from tasks.data.tokens import cut, encode
from tasks.evaluate.perplexity import bits_per_byte, perplexity
from tasks.record import home
from tasks.recover.train import Progress, Recipe, train

DOCUMENT = "<|doc|>"  # begins a document, and so ends the one before it
VOCABULARY = 3072
WINDOW = 512
REPORTS_PER_SCORE = 10
# words with the character before them | up to three digits | punctuation | line ends with the indentation after them
PIECES = r"[^\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+\n*|\s*\n+ *|\s+(?!\S)|\s+"

Log = logging.Logger | logging.LoggerAdapter


@flow(name="pretrain")
def pretrain(minutes: float = 60.0, folder: str | None = None) -> dict[str, Any]:
    """Make tokenizer and model, and leave them in `folder` with a manifest of how they were made, which is returned.

    minutes: of training. folder: `pretrain/model/` of the artifacts folder unless another is given; beside it is kept
    what is needed to go on after an interruption. ValueError where that belongs to another text or model.
    """
    log = get_run_logger()
    scratch = home.root() / "pretrain"
    scratch.mkdir(parents=True, exist_ok=True)
    tokenizer, ids_T, text = prepare(scratch)
    torch.manual_seed(0)
    model = llama(len(tokenizer))
    log.info("%d parameters, %d tokens of %d documents", model.num_parameters(), len(ids_T), text["documents"])
    done = train(
        model,
        cut(ids_T, WINDOW),
        Recipe(grow=True),
        seconds=60 * minutes,
        checkpoint=scratch / "state.safetensors",
        report=watcher(model, tokenizer, scratch / "curve.jsonl", log),
        compiled=True,
    )
    manifest = {
        "made": datetime.now(UTC).date().isoformat(),
        "command": f"python -m flows.pretrain --minutes {minutes:g}",
        "parameters": model.num_parameters(),
        "text": text | {"tokens": len(ids_T)},
        "training": asdict(done),
        "evaluation": evaluate(model, tokenizer),
    }
    made = Path(folder or scratch / "model")
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    (made / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def prepare(scratch: Path) -> tuple[PreTrainedTokenizerBase, Tensor, dict[str, int]]:
    """Tokenizer, training text as ids_T, and the text's size; kept in `scratch`, where a second call finds them.

    ValueError where other packages are installed, or the tokenizer is another, than when they were made.
    """
    stored = scratch / "tokens.safetensors"
    settings = [docs.installed("train"), VOCABULARY, DOCUMENT, PIECES]
    origin = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    if not stored.exists():
        texts = docs.gather("train", workers=os.cpu_count() or 1)
        tokenizer = train_tokenizer(texts)
        tokenizer.save_pretrained(scratch)
        facts = {"documents": str(len(texts)), "bytes": str(count_bytes(texts)), "origin": origin}
        save_file({"ids": encode(texts, tokenizer)}, scratch / "tokens.partial", metadata=facts)
        (scratch / "tokens.partial").rename(stored)
    with safe_open(stored, "pt") as file:
        facts = file.metadata()
        if facts.get("origin") != origin:
            raise ValueError(f"pretrain: {stored} is of other packages or another tokenizer; delete it to begin anew")
        ids_T, text = file.get_tensor("ids"), {name: int(facts[name]) for name in ("documents", "bytes")}
    return AutoTokenizer.from_pretrained(scratch, trust_remote_code=False), ids_T, text


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with one special token, which begins every document."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{DOCUMENT} $A", special_tokens=[(DOCUMENT, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=DOCUMENT, eos_token=DOCUMENT, model_max_length=WINDOW
    )


def llama(vocabulary: int) -> LlamaForCausalLM:
    """The architecture: 2.8 M parameters, 4 KV heads with 2 query heads each, widths in multiples of 64."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,  # with 24, bfloat16 attention takes several times as long on the CPU
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def watcher(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, curve: Path, log: Log
) -> Callable[[Progress], None]:
    """What the training calls every half minute: a line of the curve, every tenth with the bits per byte meanwhile."""
    texts = docs.read("calibration")
    ids_T = encode(texts, tokenizer)
    some_T = cut(ids_T, WINDOW)[::20].flatten()
    reports = 0

    def report(progress: Progress) -> None:
        nonlocal reports
        reports += 1
        point = asdict(progress) | {"tokens_per_s": round(progress.tokens_per_s)}
        if reports % REPORTS_PER_SCORE == 0:
            nll = perplexity(model, some_T, WINDOW).nll
            point |= {"bits_per_byte": bits_per_byte(nll, len(ids_T), count_bytes(texts))}
        log.info(json.dumps(point))
        with curve.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(point) + "\n")

    return report


def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The public number: bits per byte of the evaluation part, in windows of the model's whole context."""
    texts = docs.read("evaluation")
    ids_T = encode(texts, tokenizer)
    scored = perplexity(model, ids_T, WINDOW)
    return {
        "source": "docs",
        "sha256": hash_texts(texts),
        "text_bytes": count_bytes(texts),
        "tokens": len(ids_T),
        "window": WINDOW,
        "windows": scored.windows,
        "nll": scored.nll,
        "bits_per_byte": bits_per_byte(scored.nll, len(ids_T), count_bytes(texts)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.pretrain", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, interruptions left out (60)")
    minutes = parser.parse_args().minutes
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    use_project_settings()
    # Prefect has read its settings while it was imported, so it is told of the server
    with prefect_server() as interface, temporary_settings({PREFECT_API_URL: f"{interface}/api"}):
        pretrain(minutes)


if __name__ == "__main__":
    main()

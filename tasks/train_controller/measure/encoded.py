"""Prompts as a model's tokenizer has them: made of texts, checked against the model's context, stored and read again.

    prompts.safetensors   all ids of the prompts, one after the other, and those of their references
    prompts.json          of each prompt its id, source, split, and how many ids it has

Axes: T tokens of a prompt, R of a reference.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from tasks.train_controller.measure.episodes import LEAST_REFERENCE, EncodedPrompt

FEWEST = {"train": 8, "test": 2}  # prompts of a split, from which something can be learned or said


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, reference: str, *, prompt: str, source: str, split: str, tokens: int
) -> EncodedPrompt:
    """With the tokenizer's own special tokens before the text; of the reference no more than `tokens`.

    The reference is encoded as what follows the text, where the text's own ids stay what they are.
    """
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
    both: list[int] = tokenizer(text + reference, verbose=False)["input_ids"]
    alone: list[int] = tokenizer(reference, add_special_tokens=False, verbose=False)["input_ids"]
    reference_ids = (both[len(ids) :] if both[: len(ids)] == ids else alone)[:tokens]
    return EncodedPrompt(
        prompt=prompt,
        source=source,
        split=split,
        ids_1T=torch.tensor([ids], dtype=torch.long),
        reference_1R=torch.tensor([reference_ids], dtype=torch.long),
    )


def check_prompts(prompts: Sequence[EncodedPrompt], context: int | None, tokens: int) -> None:
    """Raises ValueError for too few of a split, and for prompts that leave no room for `tokens` more in the context."""
    for split, fewest in FEWEST.items():
        number = sum(prompt.split == split for prompt in prompts)
        if number < fewest:
            few = f"{len(prompts)} given, of which {number} to {split}"
            raise ValueError(f"prompts: {few}, valid is {fewest} or more of them, of several contents")
    short = sum(not prompt.ids_1T.numel() or prompt.reference_1R.numel() < LEAST_REFERENCE for prompt in prompts)
    if short:
        given = f"{short} without a token, or with a reference of fewer than {LEAST_REFERENCE}"
        raise ValueError(f"prompts: {given}, of which the uncut model predicts the first whatever is done")
    lengths = [prompt.ids_1T.shape[1] for prompt in prompts]
    if context is not None and max(lengths) + tokens > context:
        long, most = sum(length + tokens > context for length in lengths), context - tokens
        raise ValueError(
            f"prompts: {long} of {len(prompts)} given are longer than {most} tokens, the longest has {max(lengths)}; "
            f"valid is at most the model's context of {context} less {tokens} to answer"
        )


def save_prompts(folder: Path, prompts: Sequence[EncodedPrompt]) -> None:
    """Write them; the same prompts give the same bytes."""
    ids = torch.cat([prompt.ids_1T[0] for prompt in prompts])
    references = torch.cat([prompt.reference_1R[0] for prompt in prompts])
    save_file({"ids": ids, "references": references}, folder / "prompts.safetensors")
    entries = [
        {
            "prompt": prompt.prompt,
            "source": prompt.source,
            "split": prompt.split,
            "tokens": prompt.ids_1T.shape[1],
            "reference_tokens": prompt.reference_1R.shape[1],
        }
        for prompt in prompts
    ]
    (folder / "prompts.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")


def load_prompts(folder: Path) -> list[EncodedPrompt]:
    """As `save_prompts` was given them."""
    tensors = load_file(folder / "prompts.safetensors")
    entries = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    ids = tensors["ids"].split([entry["tokens"] for entry in entries])
    references = tensors["references"].split([entry["reference_tokens"] for entry in entries])
    return [
        EncodedPrompt(
            prompt=entry["prompt"],
            source=entry["source"],
            split=entry["split"],
            ids_1T=ids_T[None],
            reference_1R=reference_R[None],
        )
        for entry, ids_T, reference_R in zip(entries, ids, references, strict=True)
    ]


def of_split(prompts: Iterable[EncodedPrompt], split: str) -> list[EncodedPrompt]:
    return [prompt for prompt in prompts if prompt.split == split]

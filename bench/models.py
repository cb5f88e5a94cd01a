"""The models of the benchmark and what they are calibrated on.

stories3M is a trained model with real text beside the repository (`../shared/data`); llama110M has the shape of a small
Llama, random weights and random tokens, which is enough to measure time and memory.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from tasks.model.load import load_model

DATA = Path(__file__).parents[2] / "shared" / "data"
STORIES = DATA / "models" / "stories3M"
TEXT = DATA / "text" / "tinystories_train_sample.jsonl"
WINDOW = 256
WINDOWS_AT_ONCE = 4  # for both sides; with more, both are slower on a CPU and take more memory
VOCABULARY = 32_000


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to prune. `missing` is what its files lack on this machine, or None."""

    about: str
    load: Callable[[], PreTrainedModel]
    windows: Callable[[], Tensor]  # ids, (windows, WINDOW)
    missing: Callable[[], str | None] = lambda: None

    def batches(self) -> tuple[Tensor, ...]:
        """The calibration windows, for both sides in the same batches."""
        return self.windows().split(WINDOWS_AT_ONCE)


def stories_missing() -> str | None:
    absent = [path.name for path in (STORIES, TEXT) if not path.exists()]
    return f"{', '.join(absent)} absent from ../shared/data" if absent else None


def story_windows(windows: int = 64) -> Tensor:
    """The first windows of stories 0 to 399, each story encoded on its own."""
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    with TEXT.open(encoding="utf-8") as lines:
        stories = [json.loads(line)["text"] for line, _ in zip(lines, range(400), strict=False)]
    ids = [token for story in stories for token in tokenizer(story)["input_ids"]]
    return torch.tensor(ids[: windows * WINDOW]).reshape(windows, WINDOW)


def random_llama(vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """Width 768, 12 blocks of 12 heads, FFN 2048, tied embeddings: 109.5 M parameters with the usual vocabulary."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=2048,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def random_windows(windows: int = 32, vocabulary: int = VOCABULARY, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocabulary, (windows, WINDOW), generator=generator)


SUBJECTS: dict[str, Subject] = {
    "stories3M": Subject(
        about="Llama, 3.1 M parameters, trained; 64 windows of 256 tokens",
        load=lambda: load_model(STORIES),
        windows=story_windows,
        missing=stories_missing,
    ),
    "llama110M": Subject(
        about="Llama, 109.5 M parameters, random; 32 windows of 256 tokens", load=random_llama, windows=random_windows
    ),
}

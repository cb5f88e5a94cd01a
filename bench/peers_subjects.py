"""What all sides prune: a checkpoint and its calibration windows in a folder, and text to judge the results by."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from bench.models import STORIES, TEXT, random_llama, random_windows, stories_missing, story_windows
from bench.peers_worker import CALIBRATION, IDS
from tasks.model.load import load_model

VOCABULARY = 4096
CALIBRATION_WINDOWS = {"stories3M": 64, "llama88M": 32}
HELD_OUT_WINDOWS = 8  # of random ids: the error of a hidden state needs no more


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`held_out`: 1-D ids that no side sees. `trained`: its perplexity means something."""

    about: str
    trained: bool
    load: Callable[[], PreTrainedModel]
    calibration: Callable[[], Tensor]  # ids, (windows, tokens)
    held_out: Callable[[], Tensor]
    missing: Callable[[], str | None] = lambda: None

    def hand_over(self, folder: Path) -> None:
        """Write the checkpoint and the calibration windows where every side reads them."""
        self.load().save_pretrained(folder)
        save_file({CALIBRATION: self.calibration()}, folder / IDS)

    def first_block(self) -> Self:
        """The same model, cut off after its first block.

        Every side sees the same inputs there. After a whole run the keeps are a matter of luck, for the reason that
        `bench.agreement` gives: one weight of a tie, and all later blocks calibrate on other streams.
        """

        def load() -> PreTrainedModel:
            model = self.load()
            model.model.layers = model.model.layers[:1]
            model.config.num_hidden_layers = 1
            return model

        return replace(self, about=f"the first block alone; {self.about}", trained=False, load=load)


def later_stories() -> Tensor:
    """Stories 400 to 786, each encoded on its own."""
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    with TEXT.open(encoding="utf-8") as lines:
        stories = [json.loads(line)["text"] for line in islice(lines, 400, 787)]
    return torch.tensor([token for story in stories for token in tokenizer(story, verbose=False)["input_ids"]])


SUBJECTS: dict[str, Subject] = {
    "stories3M": Subject(
        about="Llama, 3.1 M parameters, trained; 64 windows of 256 tokens; judged on stories 400 to 786",
        trained=True,
        load=lambda: load_model(STORIES),
        calibration=lambda: story_windows(CALIBRATION_WINDOWS["stories3M"]),
        held_out=later_stories,
        missing=stories_missing,
    ),
    "llama88M": Subject(
        about="Llama, 88.1 M parameters, random; 32 windows of 256 random tokens; judged on 8 others",
        trained=False,
        load=lambda: random_llama(VOCABULARY),
        calibration=lambda: random_windows(CALIBRATION_WINDOWS["llama88M"], VOCABULARY),
        held_out=lambda: random_windows(HELD_OUT_WINDOWS, VOCABULARY, seed=1).flatten(),
    ),
}

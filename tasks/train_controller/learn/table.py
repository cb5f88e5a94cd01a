"""What was measured of every prompt under every action, as tensors: that from which policies learn and are judged.

Axes: P prompts, A actions, F features.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tasks.prune.structure.profiles import NONE
from tasks.train_controller.observation import FEATURES
from tasks.train_controller.rows import EpisodeRow, PromptRow


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Prompts × actions; the first action is "none". All tensors are float64.

    Raises ValueError where the first action is another one, and for shapes that do not fit or numbers that are none.
    """

    actions: tuple[str, ...]
    features: tuple[str, ...]
    prompts: tuple[str, ...]
    sources: tuple[str, ...]  # of the prompts
    state_PF: Tensor  # what is seen before the decision, 0 to 1
    ratio_PA: Tensor  # speed against "none"
    rise_PA: Tensor  # of the perplexity of the reference, as a share
    kl_PA: Tensor  # nats per token

    def __post_init__(self) -> None:
        if not self.actions or self.actions[0] != NONE:
            raise ValueError(f"actions: {', '.join(self.actions)} given, valid is {NONE} first")
        prompts, actions = len(self.prompts), len(self.actions)
        shapes = {"state_PF": (prompts, len(self.features)), "sources": (prompts,)}
        for name, shape in (shapes | dict.fromkeys(("ratio_PA", "rise_PA", "kl_PA"), (prompts, actions))).items():
            given = getattr(self, name)
            if (tuple(given.shape) if isinstance(given, Tensor) else (len(given),)) != shape:
                raise ValueError(f"{name}: {len(given)} rows given, valid is the shape {shape}")
            if isinstance(given, Tensor) and not given.isfinite().all():
                raise ValueError(f"{name}: a number that is not finite given, valid is finite ones")

    def __len__(self) -> int:
        """How many prompts."""
        return len(self.prompts)

    def state(self, prompt: int) -> Tensor:
        """What was seen of the prompt with this number, (F,)."""
        return self.state_PF[prompt]

    def outcome(self, prompt: int, action: int) -> tuple[float, float]:
        """The ratio and the rise of an action, both by their numbers."""
        return self.ratio_PA[prompt, action].item(), self.rise_PA[prompt, action].item()

    def of(self, rows: Sequence[int]) -> "Table":
        """These prompts only, in this order."""
        index = torch.as_tensor(rows, dtype=torch.long)
        return replace(
            self,
            prompts=tuple(self.prompts[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            state_PF=self.state_PF[index],
            ratio_PA=self.ratio_PA[index],
            rise_PA=self.rise_PA[index],
            kl_PA=self.kl_PA[index],
        )

    def without(self, features: Collection[str]) -> "Table":
        """With these features 0 everywhere: whoever learns from it takes no notice of them, then and later.

        Raises ValueError for a feature that is not there.
        """
        if unknown := sorted(set(features) - set(self.features)):
            raise ValueError(f"features: {unknown[0]!r} given, valid is {', '.join(self.features)}")
        seen_F = torch.tensor([name not in features for name in self.features], dtype=self.state_PF.dtype)
        return replace(self, state_PF=self.state_PF * seen_F)


def table_of(prompts: Sequence[PromptRow], episodes: Sequence[EpisodeRow], split: str) -> Table:
    """The prompts of a split, "train" or "test", in their order; actions in that of their first episode.

    Raises ValueError for a split without prompts, a prompt without a feature, and where not every prompt has exactly
    one episode of every action.
    """
    chosen = [row for row in prompts if row.split == split]
    if not chosen:
        valid = ", ".join(sorted({row.split for row in prompts})) or "none: there are no prompts"
        raise ValueError(f"split: {split!r} given, valid is {valid}")
    names = dict.fromkeys(row.prompt for row in chosen)
    actions = tuple(dict.fromkeys([NONE, *(each.action for each in episodes if each.prompt in names)]))
    measured: dict[tuple[str, str], EpisodeRow] = {}
    for episode in episodes:
        if episode.prompt in names and measured.setdefault((episode.prompt, episode.action), episode) is not episode:
            raise ValueError(f"episodes: {episode.action!r} given twice for prompt {episode.prompt}, valid is once")
    for row in chosen:
        if missing := [action for action in actions if (row.prompt, action) not in measured]:
            raise ValueError(f"episodes: {missing[0]!r} not given for prompt {row.prompt}, valid is every action")

    def column(field: str) -> Tensor:
        values = [[getattr(measured[row.prompt, action], field) for action in actions] for row in chosen]
        return torch.tensor(values, dtype=torch.float64)

    return Table(
        actions=actions,
        features=FEATURES,
        prompts=tuple(row.prompt for row in chosen),
        sources=tuple(row.source for row in chosen),
        state_PF=torch.tensor([_state(row) for row in chosen], dtype=torch.float64),
        ratio_PA=column("ratio"),
        rise_PA=column("rise"),
        kl_PA=column("kl"),
    )


def _state(row: PromptRow) -> list[float]:
    values = json.loads(row.features)
    if missing := [name for name in FEATURES if name not in values]:
        raise ValueError(f"features: prompt {row.prompt} has no {missing[0]}, valid is {', '.join(FEATURES)}")
    return [values[name] for name in FEATURES]

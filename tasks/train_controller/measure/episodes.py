"""Episodes: what each action does to each prompt, the table from which policies learn.

Axes: T tokens of the prompt, R of its reference continuation.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from tasks.model.load import context_of
from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.answers import Reader
from tasks.train_controller.act.fitting import check_actions
from tasks.train_controller.act.prefill import read_for
from tasks.train_controller.act.prompt_features import describe_prompt
from tasks.train_controller.measure.quality import judge
from tasks.train_controller.measure.rounds import time_actions
from tasks.train_controller.observation import Observation
from tasks.train_controller.rows import EpisodeRow, PromptRow

LEAST_REFERENCE = 2  # tokens: the first is the uncut model's, whatever is done, and says nothing of an action


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedPrompt:
    """A prompt and its reference continuation as token ids."""

    prompt: str  # as PromptRow names it
    source: str
    split: str  # train | test
    ids_1T: Tensor
    reference_1R: Tensor


def measure_episodes(
    profiles: Profiles,
    prompts: Sequence[EncodedPrompt],
    actions: Sequence[Action],
    *,
    reader: Reader,
    new_tokens: int = 32,
    repetitions: int = 5,
    on_prompt: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[PromptRow, list[EpisodeRow]]]:
    """The row of each prompt and those of its actions, prompt by prompt, as soon as they are measured.

    The first action is "none", with which the others are compared. An action is called what it writes itself as: of a
    subclass of Action that only writes itself otherwise, "none" can be compared with "none".
    `on_prompt(prompts_done, prompts)` is called after each prompt.

    Raises ValueError, before anything is measured, for actions that do not begin with "none", are given twice or do not
    fit the model, no tokens or repetitions, a prompt that is empty or longer than the context, a reference
    of less than `LEAST_REFERENCE` tokens.
    """
    check_episodes(profiles, prompts, actions, new_tokens, repetitions)
    return _measure(profiles, prompts, actions, reader, new_tokens, repetitions, on_prompt)


def check_episodes(
    profiles: Profiles, prompts: Sequence[EncodedPrompt], actions: Sequence[Action], new_tokens: int, repetitions: int
) -> None:
    """Raises ValueError as `measure_episodes`."""
    check_actions(actions, profiles)
    if new_tokens < 1 or repetitions < 1:
        raise ValueError(f"new_tokens, repetitions: {new_tokens}, {repetitions} given, valid is 1 or more of each")
    for prompt in prompts:
        _check_length(prompt, new_tokens, context_of(profiles.model.config))


def measure_prompt(
    profiles: Profiles,
    prompt: EncodedPrompt,
    actions: Sequence[Action],
    *,
    reader: Reader,
    new_tokens: int,
    repetitions: int,
) -> tuple[PromptRow, list[EpisodeRow]]:
    """As `measure_episodes`, of one prompt, and nothing is checked."""
    hardware = reader.read()
    read = read_for(profiles, prompt.ids_1T, actions)
    features = describe_prompt(read)
    qualities = judge(profiles, read, prompt.reference_1R, actions)
    timings = time_actions(profiles, prompt.ids_1T, actions, new_tokens=new_tokens, repetitions=repetitions)
    row = PromptRow(
        prompt=prompt.prompt,
        source=prompt.source,
        split=prompt.split,
        tokens=prompt.ids_1T.shape[1],
        reference_tokens=prompt.reference_1R.shape[1],
        features=json.dumps(Observation(hardware=hardware, prompt=features).as_dict()),
        ppl=features.ppl,
    )
    return row, [
        EpisodeRow(
            prompt=prompt.prompt,
            action=str(action),
            nll=quality.nll,
            dense_nll=quality.dense_nll,
            rise=quality.rise,
            kl=quality.kl,
            **asdict(timing),
            memory_bytes=_parameter_bytes(profiles, action.profile),
            state=json.dumps(asdict(hardware)),
        )
        for action, quality, timing in zip(actions, qualities, timings, strict=True)
    ]


def _measure(
    profiles: Profiles,
    prompts: Sequence[EncodedPrompt],
    actions: Sequence[Action],
    reader: Reader,
    new_tokens: int,
    repetitions: int,
    on_prompt: Callable[[int, int], None] | None,
) -> Iterator[tuple[PromptRow, list[EpisodeRow]]]:
    how: dict[str, Any] = {"reader": reader, "new_tokens": new_tokens, "repetitions": repetitions}
    for done, prompt in enumerate(prompts, start=1):
        yield measure_prompt(profiles, prompt, actions, **how)
        if on_prompt is not None:
            on_prompt(done, len(prompts))


def _check_length(prompt: EncodedPrompt, new_tokens: int, context: int | None) -> None:
    tokens, reference = prompt.ids_1T.shape[1], prompt.reference_1R.shape[1]
    if not tokens or reference < LEAST_REFERENCE:
        given = f"{prompt.prompt} has {tokens} tokens and {reference} of reference"
        raise ValueError(f"prompt: {given}, valid is 1 or more and {LEAST_REFERENCE} or more")
    after = max(new_tokens, reference)
    if context is not None and tokens + after > context:
        raise ValueError(
            f"prompt: {prompt.prompt} has {tokens} tokens and {after} after them, valid is at most {context} together"
        )


def _parameter_bytes(profiles: Profiles, name: str) -> int:
    with profiles.using(name) as model:
        return sum(parameter.nbytes for parameter in model.parameters())

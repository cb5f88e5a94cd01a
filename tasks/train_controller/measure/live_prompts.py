"""Prompts that are really answered, one at a time: the live mode of the environment.

Axes: F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.answers import Reader
from tasks.train_controller.act.prefill import read_for
from tasks.train_controller.act.prompt_features import describe_prompt
from tasks.train_controller.measure.episodes import EncodedPrompt, check_episodes, measure_prompt
from tasks.train_controller.observation import FEATURES, Observation


@dataclass(frozen=True, kw_only=True, eq=False)
class LivePrompts:
    """As a `Table` of these prompts and actions, but each look sees the machine anew, and each outcome is measured.

    An answer has `new_tokens`, and is timed in turn with "none", `repetitions` times behind a round that warms up.
    Raises ValueError as `measure_episodes`.
    """

    profiles: Profiles
    prompts: Sequence[EncodedPrompt]
    choices: Sequence[Action]
    reader: Reader
    new_tokens: int = 32
    repetitions: int = 4

    def __post_init__(self) -> None:
        check_episodes(self.profiles, self.prompts, self.choices, self.new_tokens, self.repetitions)

    @property
    def actions(self) -> tuple[str, ...]:
        return tuple(map(str, self.choices))

    @property
    def features(self) -> tuple[str, ...]:
        return FEATURES

    def __len__(self) -> int:
        return len(self.prompts)

    def state(self, prompt: int) -> Tensor:
        """What is seen now, (F,): the machine, and the prompt as the uncut model reads it."""
        read = read_for(self.profiles, self.prompts[prompt].ids_1T, self.choices)
        return Observation(hardware=self.reader.read(), prompt=describe_prompt(read)).as_vector()

    def outcome(self, prompt: int, action: int) -> tuple[float, float]:
        """The speed of an action against that of "none", and by how much the perplexity of the reference rises."""
        _, (*_, episode) = measure_prompt(
            self.profiles,
            self.prompts[prompt],
            [*dict.fromkeys([self.choices[0], self.choices[action]])],
            reader=self.reader,
            new_tokens=self.new_tokens,
            repetitions=self.repetitions,
        )
        return episode.ratio, episode.rise

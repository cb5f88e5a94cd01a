"""How fast each action answers a prompt, beside "none".

Machines are shared and drift, so a time alone says little. The actions answer in rounds, one after the other, in an
order that changes from round to round; compared are the times of one round. The first round warms up and does not
count. Every answer has the same number of tokens, whatever they are.

Axes: T tokens.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.decode import Timed, decode
from tasks.train_controller.act.fitting import in_force
from tasks.train_controller.act.prefill import Prefill, read_for

Each = TypeVar("Each")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of the answers of one action: medians over the rounds, as tasks.train_controller.rows has them."""

    prefill_ms: float
    switch_ms: float
    decode_ms: float  # per token
    tokens_per_s: float
    ratio: float  # the median of the ratios of each round
    cache_bytes: int


def time_actions(
    profiles: Profiles, ids_1T: Tensor, actions: Sequence[Action], *, new_tokens: int, repetitions: int
) -> list[Timing]:
    """The timing of each action, in their order, over `repetitions` rounds behind the first. "none" is among them."""
    rounds = [_answer_all(profiles, ids_1T, actions, new_tokens, number) for number in counted(repetitions)][1:]
    return [_timing(rounds, str(action), new_tokens) for action in actions]


@dataclass(frozen=True, kw_only=True)
class _Time:
    """Of one answer; the prefill is that of its round."""

    prefill_ms: float
    switch_ms: float
    decode_ms: float  # of all tokens
    cache_bytes: int

    @property
    def whole_ms(self) -> float:
        return self.prefill_ms + self.switch_ms + self.decode_ms


def _answer_all(
    profiles: Profiles, ids_1T: Tensor, actions: Sequence[Action], new_tokens: int, number: int
) -> dict[str, _Time]:
    """Read the prompt once, answer it by each action in the order of that round."""
    read = read_for(profiles, ids_1T, actions)
    order = in_order(actions, number)
    return {str(action): _answer(profiles, read, action, new_tokens) for action in order}


def in_order(everyone: Sequence[Each], number: int) -> list[Each]:
    """Those who take turns, as in round `number`: of two rounds the second goes backwards, the next two begin with
    another. So over every two rounds the mean place of all is the same."""
    first = number // 2 % len(everyone)
    order = [*everyone[first:], *everyone[:first]]
    return order[::-1] if number % 2 else order


def counted(repetitions: int) -> tuple[int, ...]:
    """The numbers of the rounds, the first of which warms up."""
    return (0, *range(repetitions))


def _answer(profiles: Profiles, read: Prefill, action: Action, new_tokens: int) -> _Time:
    with in_force(profiles, read, action) as fitted:
        tokens = Timed(decode(fitted.model, fitted.cache, read.logits_LV[-1], new_tokens=new_tokens))
        for _ in tokens:
            pass
    return _Time(
        prefill_ms=read.prefill_ms,
        switch_ms=fitted.switch_ms,
        decode_ms=1000 * tokens.seconds,
        cache_bytes=fitted.cache_bytes,
    )


def _timing(rounds: Sequence[Mapping[str, _Time]], name: str, new_tokens: int) -> Timing:
    times = [each[name] for each in rounds]
    return Timing(
        prefill_ms=statistics.median(each.prefill_ms for each in times),
        switch_ms=statistics.median(each.switch_ms for each in times),
        decode_ms=statistics.median(each.decode_ms for each in times) / new_tokens,
        tokens_per_s=1000 * new_tokens / statistics.median(each.whole_ms for each in times),
        ratio=statistics.median(each[NONE].whole_ms / each[name].whole_ms for each in rounds),
        cache_bytes=times[0].cache_bytes,
    )

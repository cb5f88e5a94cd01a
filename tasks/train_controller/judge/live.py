"""The test of a policy that counts: the controller really answers prompts, in turn with what it is compared with.

As in the episodes, all answer a prompt in rounds, each with equally many tokens, in an order that changes from round to
round; the times of one round are compared, and a first round does not count. The whole answer is timed, with prefill,
decision and switch, so that a policy pays for itself.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.answers import Answer
from tasks.train_controller.judge.regret import BEST_FIXED, DENSE, decisions
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.measure.episodes import EncodedPrompt
from tasks.train_controller.measure.rounds import counted, in_order
from tasks.train_controller.rows import DecisionRow
from tasks.train_controller.runtime import Controller


@dataclass(frozen=True, kw_only=True)
class Named:
    """A policy as the rows call it."""

    policy: str
    floor: float
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Rival:
    """Who answers: a controller by its policy, or always with one `action`."""

    named: Named
    controller: Controller
    action: Action | None = None

    def answer(self, prompt: EncodedPrompt, tokens: int) -> Answer:
        ids = prompt.ids_1T[0].tolist()
        return self.controller.answer(ids, new_tokens=tokens, ignore_stops=True, action=self.action)


@dataclass(frozen=True, kw_only=True)
class LiveAnswer:
    """What a policy did with a prompt by one action: its speed against dense, the time to choose it.

    `share`: of the rounds that took it, as another round may see another machine. `state`: what the first of them saw.
    """

    policy: str
    floor: float
    seed: int
    prompt: str
    action: str
    ratio: float
    decision_ms: float
    share: float
    state: str  # JSON, as DecisionRow has it


def answer_live(
    dense: Rival,
    rivals: Sequence[Rival],
    prompts: Sequence[EncodedPrompt],
    *,
    tokens: int,
    repetitions: int,
    again: Sequence[float] = (),
) -> Iterator[list[LiveAnswer]]:
    """Of each prompt, as soon as it is answered, what every rival did, action by action; `dense` takes "none".

    `again`: floors, at each of which stands what dense did against itself in the same rounds; it can gain nothing.
    """
    itself = [replace(dense, named=replace(dense.named, floor=floor)) for floor in again[:1]]
    everyone = {each.named: each for each in (dense, *rivals, *itself)}
    for prompt in prompts:
        rounds = [_round(everyone, prompt, tokens, number) for number in counted(repetitions)][1:]
        made = [answer for rival in rivals for answer in _by_action(rival.named, dense.named, prompt, rounds)]
        twice = [answer for each in itself for answer in _by_action(each.named, dense.named, prompt, rounds)]
        yield made + [replace(answer, floor=floor) for floor in again for answer in twice]


def live_decisions(answers: Sequence[LiveAnswer], test: Table, reward: Reward) -> list[DecisionRow]:
    """The rows of these answers: speed as it was live, the rise as the episodes have it, which no clock changes."""
    made = []
    for answer in answers:
        table = test.of([test.prompts.index(answer.prompt)])
        choice_P = table.rise_PA.new_tensor([test.actions.index(answer.action)]).long()
        [row] = decisions(answer.policy, answer.floor, answer.seed, choice_P, table, reward)
        paid = reward.once(answer.ratio, row.rise, answer.floor)
        regret = row.regret + row.reward - paid
        paid_live = replace(row, ratio=answer.ratio, reward=paid, regret=regret)
        made.append(replace(paid_live, live=True, share=answer.share, state=answer.state))
    return made


def decision_times(answers: Sequence[LiveAnswer]) -> dict[str, float]:
    """The median time to choose of every policy that chooses, in milliseconds."""
    policies = dict.fromkeys(answer.policy for answer in answers if answer.policy not in (BEST_FIXED, DENSE))
    return {
        policy: statistics.median(answer.decision_ms for answer in answers if answer.policy == policy)
        for policy in policies
    }


def _round(everyone: Mapping[Named, Rival], prompt: EncodedPrompt, tokens: int, number: int) -> dict[Named, Answer]:
    return {named: everyone[named].answer(prompt, tokens) for named in in_order([*everyone], number)}


def _by_action(
    named: Named, dense: Named, prompt: EncodedPrompt, rounds: Sequence[Mapping[Named, Answer]]
) -> list[LiveAnswer]:
    taken: dict[str, list[Mapping[Named, Answer]]] = {}
    for each in rounds:
        taken.setdefault(str(each[named].decision.action), []).append(each)
    return [
        LiveAnswer(
            **vars(named),
            prompt=prompt.prompt,
            action=action,
            ratio=statistics.median(each[named].tokens_per_s / each[dense].tokens_per_s for each in own),
            decision_ms=statistics.median(each[named].decision.decision_ms for each in own),
            share=len(own) / len(rounds),
            state=json.dumps(own[0][named].decision.observation.as_dict()),
        )
        for action, own in taken.items()
    ]

"""The stages of the flow `controller`: a table is measured, policies learn from it, answer, and are judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.controller_choices import Controller
from flows.controller_fit import PreparedController
from tasks.prune.structure.results import BuiltProfiles
from tasks.record import home
from tasks.record.provenance import machine
from tasks.stage import Stages
from tasks.train_controller.judge.regret import BEST_FIXED
from tasks.train_controller.results import Answered, Judged, Measured, Prompts, Trained
from tasks.train_controller.rows import ControllerRow, DecisionRow
from tasks.train_controller.task import answer_prompts, encode_prompts, judge_policies, measure_episodes, train_policy


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The policy to use at a floor: what its learner is worth in the table, over all seeds, and what it was live."""

    trained: Trained
    best_fixed: str
    worth: ControllerRow
    live: ControllerRow | None

    @property
    def folder(self) -> str:
        return str(home.locate(self.trained.folder))


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was measured, and what it was measured with."""

    built: BuiltProfiles
    prompts: Prompts
    measured: Measured


def measure_table(stages: Stages, parameters: Controller, found: PreparedController, built: BuiltProfiles) -> Table:
    """Encode the prompts, and measure what each action does to each."""
    prompts = stages(
        encode_prompts,
        source=parameters.prompts,
        identity=found.identity,
        limit=parameters.prompt_limit,
        seed=parameters.seed,
        tokens=parameters.tokens,
        model=found.model,
    )
    answering = _answering(parameters, found, built)
    return Table(built=built, prompts=prompts, measured=stages(measure_episodes, prompts=prompts, **answering))


def train_policies(stages: Stages, parameters: Controller, found: PreparedController, table: Table) -> list[Trained]:
    """A policy of each learner for each floor from each seed."""
    return [
        stages(
            train_policy,
            named=f"train {name} {floor:g} seed {seed}",
            measured=table.measured,
            learner=learner,
            name=name,
            without=without,
            floor=floor,
            seed=seed,
            model_hash=found.model.hash,
            profiles_hash=table.built.hash,
        )
        for floor in parameters.floor
        for name, learner, without in parameters.learners()
        for seed in range(parameters.seeds)
    ]


def choose_policies(parameters: Controller, trained: Sequence[Trained]) -> dict[float, Trained]:
    """Floor -> the policy that is paid most on the training prompts; an ablation is none to use."""
    names = {choice.method for choice in parameters.learner}
    whole = [each for each in trained if each.name in names]
    return {
        floor: max((each for each in whole if each.floor == floor), key=lambda each: each.reward)
        for floor in parameters.floor
    }


def answer_live(
    stages: Stages, parameters: Controller, found: PreparedController, table: Table, best: Mapping[float, Trained]
) -> Answered:
    """The policies to use answer the test prompts, beside dense and the best fixed actions."""
    return stages(
        answer_prompts,
        prompts=table.prompts,
        measured=table.measured,
        policies=tuple(best.values()),
        target=parameters.target,
        **_answering(parameters, found, table.built),
    )


def judge(
    stages: Stages, parameters: Controller, table: Table, trained: Sequence[Trained], answered: Answered | None
) -> Judged:
    """All policies, beside the oracle, the best fixed action, chance and dense."""
    return stages(
        judge_policies,
        measured=table.measured,
        trained=tuple(trained),
        answered=answered,
        reward=parameters.reward.build(),
        target=parameters.target,
    )


def chosen(
    best: Mapping[float, Trained], decided: Sequence[DecisionRow], worth: Sequence[ControllerRow]
) -> list[Chosen]:
    """The policies to use, with what was found of them."""
    rows = {(row.policy, row.floor, row.live): row for row in worth}
    fixed = {row.floor: row.action for row in decided if row.policy == BEST_FIXED}
    return [
        Chosen(
            trained=trained,
            best_fixed=fixed[floor],
            worth=rows[trained.name, floor, False],
            live=rows.get((trained.name, floor, True)),
        )
        for floor, trained in best.items()
    ]


def _answering(parameters: Controller, found: PreparedController, built: BuiltProfiles) -> dict[str, Any]:
    """With what, how and where prompts are answered."""
    how = {"actions": found.actions, "tokens": parameters.tokens, "repetitions": parameters.repetitions}
    return {"model": found.model, "built": built, **how, "device": found.device, "machine": machine()}

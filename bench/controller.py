"""`python -m bench.controller`: is a policy that chooses per prompt faster than the best profile for all prompts?

Four parts: what each action does to each prompt; what each learner chooses for the test prompts once it has learned
from the others, for each floor and seed, as it is, without a part of the state, and with rewards of other prompts; the
policies of the first seed live, beside the best fixed action and "none" twice; and what each learner chooses once the
reward weighs quality otherwise, for each floor and seed. Each finished piece is a line of
`<results>/controller-<model>.jsonl`, so that the benchmark can be stopped and started at any moment. Where `--minutes`
do not suffice for all prompts, half of them go to measuring, and it is learned from what was measured; the next start
measures the others. `--table` writes controller.md from the lines alone.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch

from bench.cells import left, run_cells
from bench.controller_measured import LEARN, LIVE, MEASURE, SWEEP, Cell, Line, line_of, of_part, setup_of, table_from
from bench.controller_subjects import (
    ACTIONS,
    AGAIN,
    REFERENCE,
    ROUND_TO,
    TEST_SHARE,
    Again,
    actions_of,
    profiles_of,
    prompt_source,
    prompts_of,
    weights_of,
)
from bench.controller_table import markdown
from bench.lines import add_options, file_of_lines, run_models
from bench.texts import MODELS, add_line, circumstances, present, read_lines, read_text
from flows.controller_choices import BETWEEN_ACTIONS
from tasks.model.folder import fingerprint
from tasks.model.load import load_model, load_tokenizer
from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.prefill import LOOKED_AT
from tasks.train_controller.judge.live import Named, Rival, answer_live
from tasks.train_controller.judge.regret import BEST_FIXED, DENSE, FloorUnmet, best_fixed, check_floor
from tasks.train_controller.learn.learners import ABLATIONS, LEARNERS
from tasks.train_controller.learn.policy import Policy
from tasks.train_controller.learn.table import Table
from tasks.train_controller.measure.encoded import FEWEST
from tasks.train_controller.measure.episodes import measure_episodes
from tasks.train_controller.runtime import Controller
from tasks.train_controller.state import HardwareReader

SHUFFLED = "shuffled reward"
WAYS: dict[str, Callable[[Table, int], Table]] = {  # what a learner is given to learn from, by a seed
    "": lambda table, seed: table,
    **{said: lambda table, seed, gone=gone: table.without(gone) for said, gone in ABLATIONS.items()},
    SHUFFLED: lambda table, seed: shuffled(table, seed),
}


def main() -> None:
    run_models("controller", parse(sys.argv[1:]), run, markdown)


def run(name: str, choice: argparse.Namespace) -> None:
    Study(name, choice).go_on()


class Study:
    """Of one model: what is asked, with what, and what of it has no line yet."""

    def __init__(self, name: str, choice: argparse.Namespace) -> None:
        self.name, self.choice = name, choice
        self.file = file_of_lines(choice.results, "controller", name)
        self.folder, self.text = MODELS[name][0], read_text(name)
        self.model, self.reader = load_model(self.folder), HardwareReader()
        self.actions = actions_of(BETWEEN_ACTIONS.split(choice.actions))
        prompts = prompts_of(name, choice.prompts, choice.tokens)
        self.prompts = {prompt.prompt: prompt for prompt in prompts}
        self.facts = {
            "model": fingerprint(self.folder),
            "prompts": f"{len(prompts)} of {prompt_source(name)}, {TEST_SHARE:.0%} of them to test",
            "actions": [str(action) for action in self.actions],
            "cuts": f"channels in steps of {ROUND_TO}, repaired",
            "tokens": choice.tokens,
            "reference": REFERENCE,
            "repetitions": choice.repetitions,
            "looked_at": LOOKED_AT,
        }
        self.setup = setup_of(self.facts)

    def go_on(self) -> None:
        """What has no line yet, until the time is up."""
        half, end = (time.monotonic() + seconds * self.choice.minutes for seconds in (30, 60))
        parts = (
            (self.to_measure, self.measure, half),
            (self.to_learn, self.learn, end),
            (self.to_answer, self.answer, end),
            (self.to_sweep, self.learn, end),
        )
        if not any(to_do() for to_do, _, _ in parts):
            return
        known = {"setup": self.setup, **self.facts, "floors": self.choice.floors, "target": self.choice.target}
        add_line(self.file, circumstances("bench.controller", self.model, self.text) | known)
        for to_do, do, until in parts:
            run_cells(self.file, self.name, to_do(), do, until)

    def to_measure(self) -> list[Cell]:
        return self._left(Cell(setup=self.setup, part=MEASURE, of=prompt) for prompt in self.prompts)

    def measure(self, cell: Cell) -> Line:
        how = {"new_tokens": self.choice.tokens, "repetitions": self.choice.repetitions, "reader": self.reader}
        [(row, episodes)] = measure_episodes(self.profiles, [self.prompts[cell.of]], self.actions, **how)
        return line_of(row, episodes)

    @cached_property
    def profiles(self) -> Profiles:
        return profiles_of(self.model, self.text, self.actions)

    def tables(self) -> tuple[Table, Table]:
        """To learn from and to test on: the prompts that have been measured."""
        lines = of_part(read_lines(self.file), self.setup, MEASURE)
        train, test = (table_from(lines, self.facts["actions"], split) for split in ("train", "test"))
        return train, test

    def to_learn(self) -> list[Cell]:
        """First every learner as it is; seed by seed."""
        each = product(WAYS, self.choice.learners)
        return self._to_learn(LEARN, [", ".join(filter(None, (learner, way))) for way, learner in each])

    def to_sweep(self) -> list[Cell]:
        """Every learner with each other reward; seed by seed."""
        return self._to_learn(SWEEP, [said for who in self.choice.learners for said in weights_of(LEARNERS[who]())])

    def learn(self, cell: Cell) -> Line:
        """The number of the action that is chosen for each test prompt, and what the guard of the floor found."""
        started, (_, test) = time.perf_counter(), self.tables()
        try:
            policy = self.policy_of(cell)
        except FloorUnmet as unmet:
            return {"refused": str(unmet)}
        guard = policy.guard
        return {
            "choices": policy.choices(test.state_PF).tolist(),
            "calibrated": {"violations": guard.violations, "prompts": guard.prompts, "margin": str(guard.margin)},
            "seconds": round(time.perf_counter() - started, 1),
        }

    def policy_of(self, cell: Cell) -> Policy:
        """Raises FloorUnmet."""
        train, _ = self.tables()
        check_floor(train, cell.floor)
        name, _, way = cell.of.partition(", ")
        learner = LEARNERS[name](target=cell.target)
        weighed = weights_of(learner).get(cell.of, learner)
        return weighed.learn(WAYS.get(way, WAYS[""])(train, cell.seed), cell.floor, cell.seed)

    def to_answer(self) -> list[Cell]:
        train, test = self.tables()
        asked = test.prompts[: self.choice.live] if enough(train, test) else ()
        return self._left(self._learned(LIVE, prompt, train, test) for prompt in asked)

    def answer(self, cell: Cell) -> Line:
        """One prompt, answered by everybody in turn."""
        dense, *others = self.rivals
        how = {"tokens": self.choice.tokens, "repetitions": self.choice.repetitions}
        [answers] = answer_live(dense, others, [self.prompts[cell.of]], **how)
        return {"answers": [asdict(answer) for answer in answers]}

    @cached_property
    def rivals(self) -> list[Rival]:
        """ "none", the same again, the best fixed action of each floor, and what was learned from the first seed."""
        train, test = self.tables()
        actions = tuple(action for action in self.actions if not isinstance(action, Again))
        fixed = {(BEST_FIXED, floor): best_fixed(train, floor, self.choice.target) for floor in self.choice.floors}
        found = [
            self._rival(name, floor, actions, taken=actions[number])
            for (name, floor), number in ({(DENSE, 0.0): 0, (AGAIN, 0.0): 0} | fixed).items()
        ]
        for learner, floor in product(self.choice.learners, self.choice.floors):
            with suppress(FloorUnmet):  # the line of its first seed says so
                policy = self.policy_of(self._learned(LEARN, learner, train, test, floor=floor))
                found.append(self._rival(learner, floor, actions, policy))
        return found

    def _rival(
        self,
        name: str,
        floor: float,
        actions: Sequence[Action],
        policy: Policy | None = None,
        *,
        taken: Action | None = None,
    ) -> Rival:
        controller = Controller(self.profiles, load_tokenizer(self.folder), actions, policy, reader=self.reader)
        return Rival(named=Named(policy=name, floor=floor, seed=0), controller=controller, action=taken)

    def _to_learn(self, part: str, ways: Sequence[str]) -> list[Cell]:
        train, test = self.tables()
        every = product(ways, range(self.choice.seeds), self.choice.floors)
        cells = [self._learned(part, of, train, test, floor=floor, seed=seed) for of, seed, floor in every]
        return self._left(cells if enough(train, test) else ())

    def _learned(self, part: str, of: str, train: Table, test: Table, **which: Any) -> Cell:
        prompts = len(train) + len(test)
        return Cell(setup=self.setup, part=part, of=of, prompts=prompts, target=self.choice.target, **which)

    def _left(self, cells: Iterable[Cell]) -> list[Cell]:
        return left(self.file, cells, Cell, done="cell")


def enough(train: Table, test: Table) -> bool:
    """Whether something can be learned and said, as the flow has it."""
    return len(train) >= FEWEST["train"] and len(test) >= FEWEST["test"]


def shuffled(table: Table, seed: int) -> Table:
    """Each prompt with the state of another one, so that there is nothing to learn of it."""
    order_P = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))
    return replace(table, state_PF=table.state_PF[order_P])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.controller", description=__doc__)
    models = [name for name in ("stories3M", "builtin") if name in present()]
    parser.add_argument("--models", nargs="+", choices=present(), default=models, help="(stories3M builtin)")
    parser.add_argument("--prompts", type=int, default=400, help="of both kinds together (400)")
    parser.add_argument("--actions", default=ACTIONS, help=f"beside none ({ACTIONS})")
    parser.add_argument("--floors", nargs="+", type=float, default=[0.02, 0.05, 0.1], help="(0.02 0.05 0.1)")
    parser.add_argument("--target", type=float, default=0.01, help="the share of prompts that may break one (0.01)")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS), help="(all)")
    parser.add_argument("--seeds", type=int, default=5, help="of each learner (5)")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer (24)")
    parser.add_argument("--repetitions", type=int, default=2, help="of each timing, behind one that warms up (2)")
    parser.add_argument("--live", type=int, default=40, help="test prompts that are answered live (40)")
    parser.add_argument("--minutes", type=float, default=28.0, help="for each model (28)")
    add_options(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

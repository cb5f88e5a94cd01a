"""Rows of a run that trained a controller, as plausible as those of `plausible`."""

import dataclasses
import json
import math
import random

from tasks.handles import Context
from tasks.record import metrics
from tasks.train_controller.rows import ControllerRow, DecisionRow, EpisodeRow, LearningRow, PromptRow
from tests.record.plausible import CONTEXT, finish

RUN = dataclasses.replace(CONTEXT, run="k1", flow="controller", method="dqn+bandit", pattern="floor 2%, 5%")
ACTIONS = {"none": (1.0, 0.0), "ffn20": (1.1, 0.03), "depth17@window:0.5": (1.2, 0.06)}  # speed, rise of most prompts
FLOORS, LEARNERS, SEEDS, TOKENS = (0.02, 0.05), ("dqn", "bandit"), 2, 32
PARAMETERS = json.dumps({"tokens": TOKENS, "floor": FLOORS})


def prompts(train: int = 12, test: int = 8) -> list[PromptRow]:
    """Of two sources, the first to train on."""
    return [
        PromptRow(
            prompt=f"{number:016x}",
            source=("gsm8k", "dolly")[number % 2],
            split="train" if number < train else "test",
            tokens=20 + 7 * number,
            reference_tokens=TOKENS,
            features="{}",
            ppl=10.0 + number,
        )
        for number in range(train + test)
    ]


def episode(prompt: PromptRow, action: str, spread: float) -> EpisodeRow:
    ratio, rise = ACTIONS[action]
    rise *= 1 + spread
    return EpisodeRow(
        prompt=prompt.prompt,
        action=action,
        nll=3.0 + math.log1p(rise),
        dense_nll=3.0,
        rise=rise,
        kl=rise / 2,
        prefill_ms=12.0,
        switch_ms=0.0 if action == "none" else 0.05,
        decode_ms=2.0 / ratio,
        tokens_per_s=1000 * TOKENS / (12.0 + TOKENS * 2.0 / ratio),
        ratio=ratio,
        cache_bytes=150_000 if "@" in action else 300_000,
        memory_bytes=11_200_000 if action == "none" else 9_500_000,
        state="{}",
    )


def decision(policy: str, floor: float, seed: int, row: EpisodeRow, **changes) -> DecisionRow:
    reward = row.ratio - 3 * max(0.0, row.rise - floor)
    facts = {
        "policy": policy,
        "floor": floor,
        "learner_seed": seed,
        "prompt": row.prompt,
        "action": row.action,
        "live": False,
    }
    facts |= {"ratio": row.ratio, "rise": row.rise, "reward": reward, "regret": 0.05, "share": 1.0, "state": None}
    return DecisionRow(**(facts | changes))


def controller(policy: str, floor: float, gain: float, **changes) -> ControllerRow:
    facts = {"policy": policy, "floor": floor, "live": False, "seeds": SEEDS, "prompts": 8, "gain": gain}
    facts |= {"ratio": 1.1 + gain, "ratio_low": 1.08 + gain, "ratio_high": 1.12 + gain, "gain_low": gain - 0.02}
    facts |= {"gain_high": gain + 0.02, "violations": 0.0, "mean_rise": 0.0125, "regret": 0.0625 - gain}
    return ControllerRow(**(facts | {"oracle_share": gain / 0.06, "decision_ms": 0.25} | changes))


def looks(learner: str, floor: float, seed: int) -> list[LearningRow]:
    return [
        LearningRow(
            learner=learner,
            floor=floor,
            learner_seed=seed,
            step=step,
            epsilon=1 - step / 400 if learner == "dqn" else None,
            loss=0.5 / (1 + step) if learner == "dqn" else None,
            reward=1.0 + step / 4000 + seed / 100,
            held_out_reward=1.0 + step / 5000,
        )
        for step in range(0, 401, 100)
    ]


def record_controllers(context: Context = RUN) -> None:
    """Record a run of two learners at two floors, one of which has answered live."""
    random_ = random.Random(0)
    asked = prompts()
    measured = {(row.prompt, name): episode(row, name, random_.random()) for row in asked for name in ACTIONS}
    test = [row.prompt for row in asked if row.split == "test"]
    chosen = {"oracle": "depth17@window:0.5", "best fixed": "ffn20", "random": "ffn20", "dense": "none"}
    chosen |= dict.fromkeys([*LEARNERS, "dqn, no prompt features"], "ffn20")
    decisions = [
        decision(policy, floor, seed, measured[prompt, action])
        for policy, action in chosen.items()
        for floor in FLOORS
        for seed in range(SEEDS if policy.split(",")[0] in LEARNERS else 1)
        for prompt in test
    ]
    decisions += [decision("bandit", 0.05, 1, measured[prompt, "ffn20"], live=True, ratio=1.15) for prompt in test]
    gains = {"oracle": 0.06, "dqn": 0.02, "bandit": 0.03, "dqn, no prompt features": 0.0, "best fixed": 0.0}
    rows = [controller(policy, floor, gain) for policy, gain in gains.items() for floor in FLOORS]
    rows += [controller(policy, floor, -0.1, decision_ms=None) for policy in ("random", "dense") for floor in FLOORS]
    rows += [controller("bandit", 0.05, 0.045, live=True)]
    tables = {"prompts": asked, "episodes": [*measured.values()], "decisions": decisions, "controllers": rows}
    learners = [(name, floor, seed) for name in LEARNERS for floor in FLOORS for seed in range(SEEDS)]
    learned = [look for learner in learners for look in looks(*learner)]
    for table, of_table in (tables | {"learning": learned}).items():
        metrics.record(context, table, of_table)
    finish(context, parameters=PARAMETERS)

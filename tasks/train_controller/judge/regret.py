"""How good choices are: against the best action of each prompt, one action for all, chance, and the model as it is.

Axes: S seeds, P prompts, A actions, N resamples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tasks.train_controller.allocators.portfolio import expanded
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.rows import ControllerRow, DecisionRow

ORACLE, BEST_FIXED, RANDOM, DENSE = "oracle", "best fixed", "random", "dense"
CONFIDENCE = 0.95
WORTH_LEARNING = 0.05  # share of the prompts: what meets a floor more seldom does so by chance


class FloorUnmet(ValueError):  # noqa: N818
    """No action but "none" meets the floor on prompts worth mention, so that there is nothing to choose."""


def check_floor(train: Table, floor: float) -> None:
    """Raises FloorUnmet, with the smallest floor that some action meets on `WORTH_LEARNING` of the prompts."""
    if len(train.actions) == 1:
        raise FloorUnmet(f"floor: {floor:g} given, but there is no action beside {train.actions[0]} to meet it")
    needed = math.ceil(WORTH_LEARNING * len(train))
    least_A = train.rise_PA[:, 1:].kthvalue(needed, dim=0).values
    if (least := least_A.min().item()) > floor:
        given = f"{floor:g} given, which no action but {train.actions[0]} meets on {needed} of {len(train)} prompts"
        mildest = train.actions[1 + int(least_A.argmin())]
        valid = f"at least {least:.4g}, which {mildest} meets" if least <= 1 else "one with milder actions"
        raise FloorUnmet(f"floor: {given}, valid is {valid}")


def best_fixed(train: Table, floor: float, target: float) -> int:
    """The fastest action that breaks the floor on no larger share of the training prompts than `target`."""
    broken_A = (train.rise_PA > floor).double().mean(0)
    return int(train.ratio_PA.mean(0).masked_fill(broken_A > target, -torch.inf).argmax())


def oracle(table: Table, floor: float, reward: Reward) -> Tensor:
    """Of each prompt the action of the highest reward among those that meet the floor, (P,)."""
    reward_PA = reward.of(table.ratio_PA, table.rise_PA, floor)
    return reward_PA.masked_fill(table.rise_PA > floor, -torch.inf).argmax(1)


def baselines(train: Table, test: Table, floor: float, reward: Reward, seed: int, target: float) -> dict[str, Tensor]:
    """The choices (P,) on the test prompts of those who learn nothing, by name."""
    chance = torch.Generator().manual_seed(seed)
    return {
        ORACLE: oracle(test, floor, reward),
        BEST_FIXED: torch.full((len(test),), best_fixed(train, floor, target)),
        RANDOM: torch.randint(len(test.actions), (len(test),), generator=chance),
        DENSE: torch.zeros(len(test), dtype=torch.long),
    }


def decisions(policy: str, floor: float, seed: int, choice_P: Tensor, test: Table, reward: Reward) -> list[DecisionRow]:
    """What became of these choices on the test prompts, as it was measured in their episodes.

    The oracle keeps the floor, so the regret of an action that breaks it, fast enough, can be below 0.
    """
    reward_PA = reward.of(test.ratio_PA, test.rise_PA, floor)
    best_P = reward_PA.gather(1, oracle(test, floor, reward)[:, None])[:, 0]
    return [
        DecisionRow(
            policy=policy,
            floor=floor,
            learner_seed=seed,
            prompt=prompt,
            action=test.actions[action],
            ratio=test.ratio_PA[row, action].item(),
            rise=test.rise_PA[row, action].item(),
            reward=reward_PA[row, action].item(),
            regret=(best_P[row] - reward_PA[row, action]).item(),
            live=False,
            share=1.0,
            state=None,
        )
        for row, (prompt, action) in enumerate(zip(test.prompts, choice_P.tolist(), strict=True))
    ]


def summaries(
    rows: Sequence[DecisionRow], decision_ms: Mapping[str, float] | None = None, *, resamples: int = 2000, seed: int = 0
) -> list[ControllerRow]:
    """One row for each policy, floor and way of measuring, in their order; `decision_ms`: by policy.

    Intervals hold prompts together: both are resampled, prompts and the seeds within. The gain is taken prompt by
    prompt over the best fixed action, measured the same way or else looked up. Where a policy took several actions for
    a prompt each counts by its share. Raises ValueError where the best fixed action is missing, and where not all seeds
    of a policy decided the same prompts.
    """
    grids: dict[tuple[str, float, bool], _Grid] = {}
    for key in dict.fromkeys((row.policy, row.floor, row.live) for row in rows):
        grids[key] = _Grid.of([row for row in rows if (row.policy, row.floor, row.live) == key])
    summarised = []
    for (policy, floor, live), grid in grids.items():
        fixed = grids.get((BEST_FIXED, floor, live)) or grids.get((BEST_FIXED, floor, False))
        if fixed is None:
            raise ValueError(f"rows: none of {BEST_FIXED!r} at floor {floor:g} given, valid is one for each prompt")
        gain_SP = grid.ratio_SP - fixed.ratio_of(grid.prompts)
        summarised.append(_summary(policy, floor, live, grid, gain_SP, resamples, seed))
    oracles = [row for row in summarised if row.policy == ORACLE]
    gains = {(row.floor, row.live): row.gain if row.gain_low > 0 else 0.0 for row in oracles}  # not a share of chance
    done = []
    for row in summarised:
        most = gains.get((row.floor, row.live), gains.get((row.floor, False), 0.0))
        share = row.gain / most if most > 0 else None
        done.append(replace(row, oracle_share=share, decision_ms=(decision_ms or {}).get(row.policy)))
    return done


@dataclass(frozen=True, kw_only=True, eq=False)
class _Grid:
    """The decisions of one policy: seeds × prompts."""

    prompts: tuple[str, ...]
    ratio_SP: np.ndarray
    rise_SP: np.ndarray
    broken_SP: np.ndarray  # the share of the answers that broke the floor
    regret_SP: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[DecisionRow]) -> "_Grid":
        seeds, prompts = sorted({row.learner_seed for row in rows}), tuple(dict.fromkeys(row.prompt for row in rows))
        place = {(seed, prompt): (s, p) for s, seed in enumerate(seeds) for p, prompt in enumerate(prompts)}

        def grid(value: Callable[[DecisionRow], float]) -> np.ndarray:
            value_SP = np.zeros((len(seeds), len(prompts)))
            for row in rows:
                value_SP[place[row.learner_seed, row.prompt]] += row.share * value(row)
            return value_SP

        if not np.allclose(grid(lambda row: 1.0), 1.0):
            given = f"{len(rows)} of {rows[0].policy!r} for {len(seeds)} seeds and {len(prompts)} prompts"
            raise ValueError(f"rows: {given} given, valid is one for each seed and prompt, or several of it by share")
        return cls(
            prompts=prompts,
            ratio_SP=grid(lambda row: row.ratio),
            rise_SP=grid(lambda row: row.rise),
            broken_SP=grid(lambda row: row.rise > row.floor),
            regret_SP=grid(lambda row: row.regret),
        )

    def ratio_of(self, prompts: Sequence[str]) -> np.ndarray:
        """(P,): of these prompts, the mean over the seeds."""
        if missing := [prompt for prompt in prompts if prompt not in self.prompts]:
            raise ValueError(f"rows: {BEST_FIXED!r} has none of prompt {missing[0]}, valid is one for each prompt")
        return self.ratio_SP.mean(0)[[self.prompts.index(prompt) for prompt in prompts]]


def _summary(
    policy: str, floor: float, live: bool, grid: _Grid, gain_SP: np.ndarray, resamples: int, seed: int
) -> ControllerRow:
    ratio_low, ratio_high = interval(grid.ratio_SP, resamples, seed)
    gain_low, gain_high = interval(gain_SP, resamples, seed)
    return ControllerRow(
        policy=policy,
        floor=floor,
        live=live,
        seeds=len(gain_SP),
        prompts=len(grid.prompts),
        ratio=grid.ratio_SP.mean().item(),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        gain=gain_SP.mean().item(),
        gain_low=gain_low,
        gain_high=gain_high,
        violations=grid.broken_SP.mean().item(),
        mean_rise=grid.rise_SP.mean().item(),
        regret=grid.regret_SP.mean().item(),
        oracle_share=None,
        decision_ms=None,
    )


def interval(value_SP: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Of the mean: each resample draws prompts, and for each of them seeds. The same seed draws the same prompts."""
    seeds, prompts = value_SP.shape
    random = np.random.default_rng(seed)
    prompt_NP = random.integers(prompts, size=(resamples, prompts))
    mean_N = np.zeros(resamples)
    for _ in range(seeds):
        seed_NP = random.integers(seeds, size=(resamples, prompts))
        mean_N += value_SP[seed_NP, prompt_NP].mean(1) / seeds
    tail = expanded((1 - CONFIDENCE) / 2, prompts)
    low, high = np.quantile(mean_N, (tail, 1 - tail)).tolist()
    return low, high

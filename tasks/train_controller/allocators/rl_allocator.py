"""RL-Allocator: a policy sees how the parts differ, takes rungs of all of them at once, and is paid for the outcome.

An episode is one allocation. Each part has a distribution over its numbers of rungs; a sample of all parts is projected
onto the budget, the model so cut is judged, and the policy gradient goes through the sample as it was drawn (REINFORCE,
Williams 1992). The samples of an update are judged by one fold of the windows, the same for all; only the best of them,
and what the policy does without chance, by all windows. So that few looks are enough, a descent by slopes of the reward
goes before it: the policy begins where that ends, and sees the slopes there.

Axes: P parts, F features, R rungs (from none to the most of any part), N samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical

from tasks.train_controller.allocators.descent import Descent, mean_loss
from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.search import Features, RungRises

SAVED = ("flops", "bytes", "kv")  # the costs that the reward may pay for
WEIGHTS = ("accuracy", *SAVED, "peak")
VALID: dict[str, tuple[float, float]] = {
    **dict.fromkeys(WEIGHTS, (0, 1e6)),
    "updates": (1, 1_000_000),
    "batch": (2, 4096),
    "rate": (1e-6, 1),
    "entropy": (0, 100),
    "spread": (1e-3, 1),
    "hidden": (1, 4096),
    "descent": (0, 1),
}
IDLE = 5  # updates that try nothing new, after which there is nothing left to try


@dataclass(frozen=True, kw_only=True)
class RLAllocator(Explorer):
    """reward = −accuracy · Δloss + the sum of weight · the share of the dense model's cost that is saved.

    `accuracy` to `kv`: the five weights; `peak` pays for the largest activation that is handed on for a token.
    `updates`: of the policy at most, each by `batch` samples at the learning rate `rate`; `entropy`: the bonus for it
    at first, none at last; `spread`: of a part's share at first; `hidden`: the width of the network; `descent`: the
    share of the looks that may go before it (`Descent`), 0 for none.
    """

    accuracy: float = 1.0
    flops: float = 0.0
    bytes: float = 0.0
    peak: float = 0.0
    kv: float = 0.0
    updates: int = 300
    batch: int = 8
    rate: float = 0.02
    entropy: float = 0.02
    spread: float = 0.05
    hidden: int = 16
    descent: float = 0.75

    def __post_init__(self) -> None:
        for field, (least, most) in VALID.items():
            if not least <= (given := getattr(self, field)) <= most:
                raise ValueError(f"{field}: {given} given, valid is {least:g} to {most:g}")
        if not any(getattr(self, weight) for weight in WEIGHTS):
            raise ValueError(f"accuracy: 0 given, and no other weight; valid is one of {', '.join(WEIGHTS)} above 0")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        self.check(problem)
        generator, judge = torch.Generator().manual_seed(seed), trail.judge
        dense = trail.loss((0,) * len(problem.parts))

        def reward(levels: Levels, loss: float) -> float:
            return self.reward(problem, levels, loss - dense)

        def paid(levels: Levels, entropy: float | None = None) -> None:
            loss = trail.loss(levels)
            trail.note(levels, loss, reward=reward(levels, loss), entropy=entropy)

        if self.descent:
            slope_P = self._descended(problem, trail, reward, paid)
        else:
            slope_P = None
            paid(problem.uniform())
        seen_PF = observe(problem, features, slope_P)
        policy = Policy(problem, seen_PF, trail.best, self.hidden, self.spread, generator)
        optimiser = torch.optim.Adam(policy.parameters(), lr=self.rate)
        windows, idle = judge.windows_left, 0
        for update in range(self.updates):
            left, fold = judge.windows_left, update % judge.folds
            chances = policy()
            entropy_P = chances.entropy()
            wanted_NP = draw(chances, self.batch, generator)
            tried = [projected(problem, wanted_P) for wanted_P in wanted_NP.tolist()]
            reward_N = torch.tensor(
                [reward(levels, mean_loss(judge.search_losses(levels, fold))) for levels in tried], dtype=torch.float64
            )
            for levels in (projected(problem, chances.probs.argmax(1).tolist()), tried[int(reward_N.argmax())]):
                paid(levels, entropy_P.sum().item())
            spread = reward_N.std().clamp(min=1e-12)
            advantage_N = (reward_N - reward_N.mean()) / spread  # leave-one-out but for a factor, which this divides by
            gain = (advantage_N * chances.log_prob(wanted_NP).sum(1)).mean()
            bonus = self.entropy * left / max(windows, 1) * entropy_P.mean()
            optimiser.zero_grad()
            (-gain - bonus).backward()
            optimiser.step()
            idle = idle + 1 if judge.windows_left == left else 0
            if idle == IDLE:
                break
            if idle:  # it is sure of what it does: begin anew about the best so far
                policy = Policy(problem, seen_PF, trail.best, self.hidden, self.spread, generator)
                optimiser = torch.optim.Adam(policy.parameters(), lr=self.rate)

    def reward(self, problem: Problem, levels: Levels, added_loss: float) -> float:
        """Of levels that add `added_loss` nats per token to the dense model's."""
        reward = -self.accuracy * added_loss
        for cost in self._paid:
            reward += getattr(self, cost) * problem.saved(levels, cost) / problem.totals[cost]
        if self.peak:
            reward += self.peak * (1 - problem.peak(levels) / problem.peak((0,) * len(levels)))
        return reward

    def check(self, problem: Problem) -> None:
        """Also for a weight of a cost that all levels which meet the budget save alike: it would change nothing."""
        has = {*problem.saves, *(["peak"] if problem.peaks else [])}
        for cost in (*SAVED, "peak"):
            if getattr(self, cost) and cost not in has:
                raise ValueError(f"{cost}: {getattr(self, cost)} given, the problem has only {', '.join(sorted(has))}")
        for cost in self._paid:
            ratios = {Fraction(*pair) for pair in zip(problem.saves[cost], problem.unit_costs, strict=True)}
            if len(ratios) == 1:
                alike = f"all levels of this budget of {problem.cost} save it alike"
                raise ValueError(f"{cost}: {getattr(self, cost)} given, but {alike}; valid is {cost}=0")

    def _descended(
        self,
        problem: Problem,
        trail: Trail,
        reward: Callable[[Levels, float], float],
        paid: Callable[[Levels], None],
    ) -> NDArray[np.float64]:
        """The slopes (P,) of what is lost of the reward, where the descent ends or its share of the looks does."""
        bonus_P = np.zeros(len(problem.parts))  # without the peak: it is of one part alone, and has no place in a sum
        for cost in self._paid:
            bonus_P += getattr(self, cost) / problem.totals[cost] * np.array(problem.saves[cost])

        def priced(rises: RungRises) -> RungRises:
            return [self.accuracy * rise_R - bonus for rise_R, bonus in zip(rises, bonus_P, strict=True)]

        return Descent().descend(
            problem,
            trail.judge,
            paid,
            value=lambda levels, loss: -reward(levels, loss),
            priced=priced,
            keep=round(trail.judge.windows_left * (1 - self.descent)),
        )

    @property
    def _paid(self) -> list[str]:
        return [cost for cost in SAVED if getattr(self, cost)]


def observe(problem: Problem, features: Features, slope_P: NDArray[np.float64] | None = None) -> Tensor:
    """What a policy sees of each part, (P, F), each column standardised.

    The features that all parts have; its slope, where slopes are known; and which part it is.
    """
    known = [features.get(part, {}) for part in problem.parts]
    shared = sorted(set.intersection(*(set(each) for each in known)))
    slopes = [[]] * len(known) if slope_P is None else slope_P[:, None].tolist()
    rows = [[*(each[name] for name in shared), *slope] for each, slope in zip(known, slopes, strict=True)]
    seen_PF = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), -1)
    seen_PF -= seen_PF.mean(0)
    seen_PF /= seen_PF.square().mean(0).sqrt().clamp(min=1e-12)
    return torch.cat([seen_PF, torch.eye(len(rows), dtype=torch.float64)], 1)


class Policy(nn.Module):
    """For each part a normal distribution of the share of its rungs, on whole rungs; at first about `start`."""

    def __init__(
        self, problem: Problem, seen_PF: Tensor, start: Levels, hidden: int, spread: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        rungs_P = torch.tensor(problem.rungs, dtype=torch.float64)
        self.seen_PF = seen_PF
        self.share_PR = torch.arange(max(problem.rungs) + 1) / rungs_P[:, None]
        self.start_P = torch.tensor(start) / rungs_P
        self.spread_P = (0.5 / rungs_P).clamp(min=spread)  # where rungs are few, so wide that two are within reach
        self.hidden = nn.Linear(seen_PF.shape[1], hidden, dtype=torch.float64)
        self.out = nn.Linear(hidden, 2, dtype=torch.float64)
        nn.init.normal_(self.hidden.weight, std=seen_PF.shape[1] ** -0.5, generator=generator)
        for zeroed in (self.hidden.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(zeroed)

    def forward(self) -> Categorical:
        moved_P, wider_P = self.out(torch.tanh(self.hidden(self.seen_PF))).unbind(1)
        away_PR = (self.share_PR - (self.start_P + moved_P)[:, None]) / (self.spread_P * wider_P.exp())[:, None]
        return Categorical(logits=(-(away_PR**2) / 2).masked_fill(self.share_PR > 1, -torch.inf))


def draw(chances: Categorical, count: int, generator: torch.Generator) -> Tensor:
    """Numbers of rungs, (N, P): `Categorical.sample` takes no generator."""
    return torch.multinomial(chances.probs.detach(), count, replacement=True, generator=generator).T


def projected(problem: Problem, wanted_P: list[int]) -> Levels:
    """The levels next to these numbers of rungs."""
    return problem.project([Fraction(rungs, most) for rungs, most in zip(wanted_P, problem.rungs, strict=True)])

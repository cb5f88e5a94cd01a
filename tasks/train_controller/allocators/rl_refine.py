"""RL-Refine: from levels that are there, one move after the other, each kept only where a gate lets it pass.

A move takes rungs more of one part, the donor, and gives as many back to another, the receiver, as the budget is met
by. The policy begins with the slopes (`Judge.rung_rises`), asked for again with each shorter stride, and learns which
pairs pay, from every other window of the search; the windows between are the gate, on which the loss falls with every
move that is kept. What does not pass is rolled back, so the end is never worse than the start there. Slopes are of the
windows that it learns from, too: what is proposed knows nothing of the gate.

Axes: P parts, F features, W windows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Categorical

from tasks.train_controller.allocators.adapt import AdaptPruner
from tasks.train_controller.allocators.descent import steepness
from tasks.train_controller.allocators.explore import Explorer, Trail
from tasks.train_controller.allocators.problem import Levels, Problem
from tasks.train_controller.allocators.rl_allocator import observe
from tasks.train_controller.allocators.search import Features, Searcher
from tasks.train_controller.allocators.uniform import Uniform

STARTS: dict[str, type[Searcher]] = {"uniform": Uniform, "adapt": AdaptPruner}  # those that look at no loss
VALID: dict[str, tuple[float, float]] = {
    "steps": (1, 1_000_000),
    "stride": (1e-4, 1),
    "patience": (1, 1_000_000),
    "margin": (0, 100),
    "rate": (1e-6, 1),
    "entropy": (0, 100),
    "hidden": (1, 4096),
}


@dataclass(frozen=True, kw_only=True)
class RLRefine(Explorer):
    """From `start`, the name of an allocator that looks at no loss, or levels of any other, by up to `steps` moves.

    A receiver gets back a share `stride` of its rungs, half as much after `patience` moves in a row that were not kept,
    and so on down to a single rung, of which all moves are tried. A move passes the gate where the loss falls by more
    than `margin` standard errors. `rate`: of the policy's learning; `entropy`: the bonus for it; `hidden`: its width.
    """

    least_windows: ClassVar[int] = 8  # to learn from two of the four that are looked at, the others are the gate

    start: str | Levels = "adapt"
    steps: int = 1000
    stride: float = 0.2
    patience: int = 16
    margin: float = 1.0
    rate: float = 0.01
    entropy: float = 0.01
    hidden: int = 16

    def __post_init__(self) -> None:
        if isinstance(self.start, str) and self.start not in STARTS:
            raise ValueError(f"start: {self.start} given, valid is {', '.join(STARTS)}, or levels")
        for field, (least, most) in VALID.items():
            if not least <= (given := getattr(self, field)) <= most:
                raise ValueError(f"{field}: {given} given, valid is {least:g} to {most:g}")

    def explore(self, problem: Problem, trail: Trail, features: Features, seed: int) -> None:
        levels = self._first(problem, trail, features)
        trail.best = levels  # where not even a single look is left
        losses_W = trail.losses(levels)
        if len(losses_W) < 4:
            raise ValueError(f"windows: {len(losses_W)} given, valid is 4 or more: to learn from, and for the gate")
        trail.note(levels, losses_W.mean(), accepted=True)

        generator = torch.Generator().manual_seed(seed)
        slope_P = self._slopes(problem, trail, levels)
        policy = Pairs(problem, observe(problem, features, slope_P), self.hidden, generator)
        policy.prefer(slope_P)
        optimiser = torch.optim.Adam(policy.parameters(), lr=self.rate)
        stride, refused = self.stride, 0
        tried, gains = {levels}, [0.0]
        for _ in range(self.steps):
            moves = {pair: moved for pair, moved in _moves(problem, levels, stride).items() if moved not in tried}
            smallest = stride * max(problem.rungs) <= 1
            if not smallest and (refused == self.patience or not moves):
                stride, refused = stride / 2, 0
                policy.prefer(self._slopes(problem, trail, levels))
                continue
            if not moves:
                break
            chances = policy(levels, list(moves))
            pair = torch.multinomial(chances.probs.detach(), 1, generator=generator)
            (donor, receiver), moved = list(moves.items())[int(pair)]
            moved_W = trail.losses(moved)
            tried.add(moved)
            fall_W = losses_W - moved_W
            gain = fall_W[0::2].mean()
            passed = self._passes(fall_W[1::2])
            trail.note(
                moved,
                moved_W.mean(),
                reward=gain,
                entropy=chances.entropy().item(),
                accepted=passed,
                donor=problem.parts[donor],
                receiver=problem.parts[receiver],
            )
            advantage = (gain - np.mean(gains)) / max(np.std([*gains, gain]), 1e-12)
            gains.append(gain)
            optimiser.zero_grad()
            (-advantage * chances.log_prob(pair).sum() - self.entropy * chances.entropy()).backward()
            optimiser.step()
            refused = 0 if passed else refused + 1
            if passed:
                levels, losses_W = moved, moved_W

    def _first(self, problem: Problem, trail: Trail, features: Features) -> Levels:
        if isinstance(self.start, str):
            return STARTS[self.start]().search(problem, trail.judge, features).levels
        if len(self.start) != len(problem.parts) or not problem.meets(self.start):
            raise ValueError(f"start: {self.start} given, which does not meet the budget of these parts")
        return self.start

    def _slopes(self, problem: Problem, trail: Trail, levels: Levels) -> NDArray[np.float64]:
        """Of the windows that are not the gate's: with four folds, those of every other one."""
        of_folds = [trail.judge.rung_rises(levels, fold).parts for fold in range(0, trail.judge.folds, 2)]
        rises = [np.mean(rise_FR, 0) for rise_FR in zip(*of_folds, strict=True)]
        return steepness(problem, levels, rises, self.stride)

    def _passes(self, fall_W: NDArray[np.float64]) -> bool:
        return bool(fall_W.mean() > self.margin * fall_W.std(ddof=1) / len(fall_W) ** 0.5)


class Pairs(nn.Module):
    """A softmax over pairs of parts: how good a part is as a donor, and the other as a receiver, added.

    Before it has learned anything it goes by the slopes: rungs go where the loss is flat, and come back where it is
    steep.
    """

    def __init__(self, problem: Problem, seen_PF: Tensor, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.seen_PF = seen_PF
        self.rungs_P = torch.tensor(problem.rungs)
        self.hidden = nn.Linear(seen_PF.shape[1] + 1, hidden, dtype=torch.float64)
        self.out = nn.Linear(hidden, 2, dtype=torch.float64)
        nn.init.normal_(self.hidden.weight, std=(seen_PF.shape[1] + 1) ** -0.5, generator=generator)
        for zeroed in (self.hidden.bias, self.out.weight, self.out.bias):
            nn.init.zeros_(zeroed)
        self.prefer(np.zeros(len(problem.parts)))

    def prefer(self, slope_P: NDArray[np.float64]) -> None:
        """Receivers that are steep, and donors that are flat: by standard deviations."""
        self.steep_P = torch.from_numpy((slope_P - slope_P.mean()) / max(slope_P.std(), 1e-12))

    def forward(self, levels: Levels, pairs: list[tuple[int, int]]) -> Categorical:
        """Over these (donor, receiver), beside what is known of the parts by how much of them has gone."""
        gone_P1 = (torch.tensor(levels) / self.rungs_P).double()[:, None]
        donor_P, receiver_P = self.out(torch.tanh(self.hidden(torch.cat([self.seen_PF, gone_P1], 1)))).unbind(1)
        donors, receivers = torch.tensor(pairs).unbind(1)
        return Categorical(
            logits=donor_P[donors] - self.steep_P[donors] + receiver_P[receivers] + self.steep_P[receivers]
        )


def _moves(problem: Problem, levels: Levels, stride: float) -> dict[tuple[int, int], Levels]:
    """By (donor, receiver), all that can be done with that stride, a rung at least."""
    moves = {}
    for receiver, most in enumerate(problem.rungs):
        for donor in range(len(levels)):
            moved = problem.moved(levels, donor, receiver, max(1, round(stride * most)))
            if moved is not None:
                moves[donor, receiver] = moved
    return moves

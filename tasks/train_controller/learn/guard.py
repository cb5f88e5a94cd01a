"""The quality floor as a constraint: an action is admitted where its predicted rise, and a margin, meet the floor.

How wide the margin has to be is found on prompts that the predictions did not learn from (conformal risk control,
arXiv:2208.02814): the smallest from which on few enough of them get an action that breaks the floor. Where v of n break
it, a further prompt from where they came from does so with a chance of at most (v + 1) / (n + 1) [Theorem 1, of a loss
of 0 or 1; that the spreads and the free action are of the same prompts is not in it]. Where n is too small for that to
be within the target even with v = 0, no violation is suffered, and `bound` says what can be promised: of 100 prompts
1 %.

Axes: N prompts, A actions, L margins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 0.881373587019543  # asinh(1): the strain of a rise that just meets the floor
FAR = 2.5  # a strain beyond it, of about 6 floors, counts as this
MARGIN_L = torch.tensor([*(step / 50 for step in range(401)), torch.inf], dtype=torch.float64)


def strain_of(rise: Tensor, floor: float) -> Tensor:
    """asinh(rise / floor), bounded: close to linear about the floor, and hardly moved by what is far beyond it.

    So a few answers that are wholly spoilt, which are usual, do not decide what is predicted of the others.
    """
    return torch.asinh(rise / floor).clamp(-FAR, FAR)


def most_violations(prompts: int, target: float) -> int:
    """The largest v with (v + 1) / (prompts + 1) <= target; 0 also where there is none."""
    return max(0, int(target * (prompts + 1) + 1e-9) - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Guard:
    """Which actions may be taken: those that are free, and those whose strain + margin · spread_A meets the floor.

    `free_A`: "none", and perhaps one more. `violations` of `prompts`: how many broke the floor where it was calibrated.
    """

    free_A: Tensor
    spread_A: Tensor
    margin: float
    violations: int
    prompts: int

    @property
    def bound(self) -> float:
        """The chance that one more prompt breaks the floor, by the number of those that did."""
        return (self.violations + 1) / (self.prompts + 1)

    def scores(self, value_NA: Tensor, strain_NA: Tensor) -> Tensor:
        """The values of the actions that may be taken, (N, A); −inf of the others."""
        met_NA = strain_NA + self.margin * self.spread_A <= LIMIT
        return value_NA.masked_fill(~(met_NA | self.free_A), -torch.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """Prompts that the predictions did not learn from: what was predicted of them, and what was measured."""

    value_NA: Tensor
    strain_NA: Tensor
    reward_NA: Tensor
    rise_NA: Tensor


def calibrated(seen: Seen, *, floor: float, target: float) -> Guard:
    """The guard with which few enough of these prompts break the floor: at most the share `target` of them, and of one.

    An action is the less trusted the further its rise went beyond what was predicted. "none", the first action, is
    always free. Of the others that break the floor so seldom that they could always be taken, the best paid one is free
    too, if that pays: so that predictions which know nothing are no worse than one action for all.
    """
    missed_NA = (strain_of(seen.rise_NA, floor) - seen.strain_NA).clamp(min=0)  # to expect too much breaks nothing
    spread_A = missed_NA.square().mean(0).sqrt().clamp(min=0.01)
    most = most_violations(len(missed_NA), target)
    number_A = torch.arange(len(spread_A))
    safe_A = ((seen.rise_NA > floor).sum(0) <= most) | (number_A == 0)
    fixed = int(seen.reward_NA.mean(0).masked_fill(~safe_A, -torch.inf).argmax())
    frees = (number_A == 0, (number_A == 0) | (number_A == fixed))
    return max((_with_margin(seen, free_A, spread_A, floor, most) for free_A in frees), key=lambda each: each[0])[1]


def _with_margin(seen: Seen, free_A: Tensor, spread_A: Tensor, floor: float, most: int) -> tuple[float, Guard]:
    """The smallest margin from which on the floor is not broken more than `most` times, and the mean reward with it.

    That is −inf where even the actions that are free break it more often.
    """
    shut_LNA = ~((seen.strain_NA + MARGIN_L[:, None, None] * spread_A <= LIMIT) | free_A)
    choice_LN1 = seen.value_NA.masked_fill(shut_LNA, -torch.inf).argmax(2, keepdim=True)
    broken_L = (seen.rise_NA > floor).expand_as(shut_LNA).gather(2, choice_LN1).sum((1, 2))
    from_here_on_L = broken_L.flip(0).cummax(0).values.flip(0)
    level = min(int((from_here_on_L > most).sum()), len(MARGIN_L) - 1)
    reward = seen.reward_NA.gather(1, choice_LN1[level]).mean().item()
    guard = Guard(
        free_A=free_A,
        spread_A=spread_A,
        margin=MARGIN_L[level].item(),
        violations=int(broken_L[level]),
        prompts=len(seen.rise_NA),
    )
    return (-torch.inf if guard.violations > most else reward), guard

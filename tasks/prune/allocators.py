"""Who decides how much of each block goes: a method, or a file of one's own.

Sizes, ratios and sparsities are sequences with one number per block, in the order the blocks run.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.outliers import outlier_ratios
from tasks.model.anatomy import find_blocks, linears_of
from tasks.prune.allocation import Allocation, shift
from tasks.prune.weight.pattern import NM, Pattern


@dataclass(frozen=True, kw_only=True)
class Allocator(ABC):
    """A method with its hyper-parameters: what it measures of the dense model, and how that divides the sparsity."""

    def allocate(
        self,
        model: PreTrainedModel,
        pattern: Pattern,
        batches: Sequence[Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> Allocation:
        """How much of each block of the dense `model` goes, where `pattern` says how much in all.

        `batches`: calibration ids, (windows, tokens) each; `device`: where a block is while it is observed. The model
        stays as it is. Raises ValueError for a pattern that the method cannot divide, before anything is observed.
        """
        self.check(pattern)
        measured = self.measure(model, batches, device)
        return Allocation(sparsities=self.divide(pattern, block_sizes(model), measured))

    def check(self, pattern: Pattern) -> None:  # noqa: B027 - most methods divide any
        """ValueError for a pattern that the method cannot divide, whatever the model."""

    def measure(
        self, model: PreTrainedModel, batches: Sequence[Tensor] | None, device: torch.device | str | None
    ) -> Sequence[float]:
        """One number per block, or none at all for a method that does not look at the model."""
        return ()

    @abstractmethod
    def divide(self, pattern: Pattern, sizes: Sequence[int], measured: Sequence[float]) -> tuple[float, ...]:
        """The sparsities. `sizes` are the weights in the linears of each block."""


@dataclass(frozen=True, kw_only=True)
class Uniform(Allocator):
    """The sparsity of the pattern in every block."""

    def divide(self, pattern: Pattern, sizes: Sequence[int], measured: Sequence[float]) -> tuple[float, ...]:
        return (pattern.sparsity,) * len(sizes)


@dataclass(frozen=True, kw_only=True)
class OWL(Allocator):
    """The more outliers among the scores of a block, the less of it goes.

    A score is an outlier above `threshold` times its block's mean (M in the paper); no block is further than `spread`
    (λ) from the sparsity of the pattern. Source: Yin et al., Outlier Weighed Layerwise Sparsity, arXiv:2310.05175.
    """

    threshold: float = 5.0
    spread: float = 0.08

    def __post_init__(self) -> None:
        if not 0 < self.threshold < float("inf"):
            raise ValueError(f"threshold: {self.threshold} given, valid is above 0")
        if not 0 < self.spread < 0.5:
            raise ValueError(f"spread: {self.spread} given, valid is 0 < spread < 0.5")

    def check(self, pattern: Pattern) -> None:
        if not self.spread <= pattern.sparsity < 1 - self.spread:
            raise ValueError(
                f"spread: {self.spread} given, but {pattern.sparsity:g} ± spread, {pattern} being the pattern, "
                "must stay at 0 or more and below 1"
            )
        if isinstance(pattern, NM) and self.spread * pattern.m < 0.5:
            raise ValueError(
                f"spread: with {self.spread:g} owl leaves every block at {pattern}; valid is {0.5 / pattern.m:g} or "
                f"more, half a step of the pattern, as in owl,spread={0.5 / pattern.m:g}"
            )

    def measure(
        self, model: PreTrainedModel, batches: Sequence[Tensor] | None, device: torch.device | str | None
    ) -> Sequence[float]:
        return outlier_ratios(model, batches, self.threshold, device)

    def divide(self, pattern: Pattern, sizes: Sequence[int], measured: Sequence[float]) -> tuple[float, ...]:
        return owl_sparsities(measured, sizes, pattern.sparsity, self.spread)


@dataclass(frozen=True, kw_only=True)
class Given(Allocator):
    """The sparsities themselves, those of the FFNs apart if they are given.

    They must average that of the pattern, which `patterns_for` holds against it.
    """

    sparsities: tuple[float, ...]
    ffn: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        Allocation(sparsities=self.sparsities, ffn=self.ffn)  # raises for what is none

    def allocate(
        self,
        model: PreTrainedModel,
        pattern: Pattern,
        batches: Sequence[Tensor] | None = None,
        device: torch.device | str | None = None,
    ) -> Allocation:
        return Allocation(sparsities=self.sparsities, ffn=self.ffn)

    def divide(self, pattern: Pattern, sizes: Sequence[int], measured: Sequence[float]) -> tuple[float, ...]:
        return self.sparsities

    def as_json(self) -> str:
        """What `from_text` reads."""
        if self.ffn is None:
            return json.dumps(self.sparsities)
        return json.dumps(
            [dict(zip(HALVES, halves, strict=True)) for halves in zip(self.sparsities, self.ffn, strict=True)]
        )


ALLOCATIONS: dict[str, type[Allocator]] = {"uniform": Uniform, "owl": OWL}  # any other word is a file: `from_file`
HALVES = ("attention", "ffn")
_VALID = (
    f'valid is {", ".join(ALLOCATIONS)}, or a JSON file such as [0.4, 0.6], {{"0": 0.4, "1": 0.6}} or '
    '{"0": {"attention": 0.4, "ffn": 0.6}}'
)


def from_file(path: str | Path) -> Given:
    """The sparsities in a JSON file: a list, `[0.4, 0.6]`, or by number of the block, `{"0": 0.4, "1": 0.6}`.

    Of all blocks, that of a block may be `{"attention": 0.4, "ffn": 0.6}` instead.
    The contents are read once and here, so that a run is known by them and not by the file's name. Raises ValueError
    for a file that cannot be read or is anything else, with the block that is missing, doubled, or no sparsity.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"allocation: {str(path)!r} given, which cannot be read ({error}); {_VALID}") from error
    return from_text(text, str(path))


def from_text(text: str, where: str = "the JSON") -> Given:
    """As `from_file`, of the contents themselves."""
    try:
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"allocation: {where!r} given, which cannot be read ({error}); {_VALID}") from error
    if isinstance(content, _Pairs):
        values = _in_order(content)
    elif isinstance(content, list):
        values = content
    else:
        raise ValueError(f"allocation: {json.dumps(content)} given in {where}; {_VALID}")
    if not values:
        raise ValueError(f"allocation: no block given in {where}; {_VALID}")
    if any(isinstance(value, _Pairs) for value in values):
        halves = [_halves(block, value, where) for block, value in enumerate(values)]
        return Given(sparsities=tuple(attention for attention, _ in halves), ffn=tuple(ffn for _, ffn in halves))
    return Given(sparsities=tuple(_sparsity(block, value, where) for block, value in enumerate(values)))


def _halves(block: int, value: Any, where: str) -> tuple[float, float]:
    """The sparsities of a block's attention and FFN."""
    names = [name for name, _ in value] if isinstance(value, _Pairs) else []
    if sorted(names) != sorted(HALVES):
        given = json.dumps(dict(value) if names else value)
        raise ValueError(f"allocation: {given} given for block {block} in {where}, others have attention and ffn apart")
    attention, ffn = (_sparsity(block, dict(value)[name], where) for name in HALVES)
    return attention, ffn


def _sparsity(block: int, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        given = json.dumps(dict(value) if isinstance(value, _Pairs) else value)  # null, as the file has it, not None
        raise ValueError(f"allocation: {given} given for block {block} in {where}, valid is 0 <= sparsity < 1")
    return float(value)


def owl_sparsities(ratios: Sequence[float], sizes: Sequence[int], sparsity: float, spread: float) -> tuple[float, ...]:
    """S_l = S + λ − 2λ·(D_l − min D) / (max D − min D), then all moved by one constant so that their mean is S.

    D: `ratios`; S: `sparsity`; λ: `spread`. The mean is weighted by `sizes`, and moving clips to [S − λ, S + λ]: the
    interval of the paper (section 3), which the authors' program leaves where the ratios lie lopsided; else they agree.
    Equal ratios give S everywhere.
    """
    least, most = min(ratios), max(ratios)
    if least == most:
        return (sparsity,) * len(sizes)
    low, high = Fraction(sparsity) - Fraction(spread), Fraction(sparsity) + Fraction(spread)
    ranks = [(Fraction(ratio) - Fraction(least)) / (Fraction(most) - Fraction(least)) for ratio in ratios]
    wanted = [(high - (high - low) * rank) * size for rank, size in zip(ranks, sizes, strict=True)]
    bounds = [(low * size, high * size) for size in sizes]
    dropped = shift(wanted, sizes, Fraction(sparsity) * sum(sizes), bounds, costs=[1] * len(sizes))
    return tuple(float(weights / size) for weights, size in zip(dropped, sizes, strict=True))


def block_sizes(model: PreTrainedModel) -> list[int]:
    """The weights in the linears of each block."""
    _, blocks = find_blocks(model)
    return [sum(linear.weight.numel() for linear in linears_of(block).values()) for block in blocks]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written: a key may stand there twice."""


def _in_order(pairs: _Pairs) -> list[Any]:
    """The values of the blocks 0, 1, …, each of them once."""
    keys = [key for key, _ in pairs]
    for block in range(len(keys)):
        if keys.count(str(block)) != 1:
            count = keys.count(str(block))
            raise ValueError(
                f"allocation: block {block} given {count} times among {len(keys)} blocks, valid is once each"
            )
    return [value for block in range(len(keys)) for key, value in pairs if key == str(block)]

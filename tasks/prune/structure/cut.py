"""A cut of a whole model in one value: how much goes, in which units, whether the rest is repaired, and its form."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.calibrate.importance.importance import WHOLE
from tasks.handles import SliceRow
from tasks.model.anatomy import find_blocks
from tasks.model.units import KINDS, PARTS, units_of
from tasks.prune.structure.apply import slice_model
from tasks.prune.structure.budget import check_cost
from tasks.prune.structure.choose import Choice, Scores, Share, choices, choose, choose_counts
from tasks.prune.structure.choose_depth import SHOWN, choose_depth, costs_of, flops_of, of_depth, slice_depth
from tasks.prune.structure.cut_depth import cut_depth
from tasks.prune.structure.export import FORMS, refusals_of
from tasks.prune.structure.results import CutRows
from tasks.prune.structure.rows import RepairRow, SplitRow
from tasks.prune.structure.slice import Slice
from tasks.prune.structure.split import choose_split
from tasks.prune.structure.width import slice_units

BEST_FORMS = ("uniform", "per_layer", "padded")  # the smallest first, and of those the one that any software loads


@dataclass(frozen=True, kw_only=True)
class Cut:
    """`budget`: the share of a cost of the blocks that goes, in units of these `kinds`; or in depth, of blocks, or of
    attentions and FFNs.

    `cost`: of tasks.prune.structure.budget.COSTS. `shares`: what goes of each block, whose mean is the budget; by
    default the same of all. `left`: instead, what a search has found: how many units of each of the kinds stay in each
    block, 0 of those that it does not have.

    `repair`: fit the readers of what was cut to the inputs that stay; what goes in depth has none. `form`: of
    tasks.prune.structure.export.FORMS, None for the first of BEST_FORMS that can express what is left.
    """

    budget: float
    cost: str = "parameters"
    shares: tuple[float, ...] | None = None
    left: tuple[tuple[int, ...], ...] | None = None
    kinds: tuple[str, ...] = ("head_groups", "channels")
    round_to: int = 64
    repair: bool = True
    form: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.budget < 1:
            raise ValueError(f"budget: {self.budget:g} given, valid is more than 0 and less than 1")
        given = f"units: {', '.join(self.kinds) or 'none'} given"
        of_width = bool(self.kinds) and {*self.kinds} <= {*KINDS}
        if len({*self.kinds}) < len(self.kinds) or not (of_width or self.in_depth):
            raise ValueError(f"{given}, valid are some of {', '.join(KINDS)}; or blocks; or some of {', '.join(PARTS)}")
        if {"head_groups", "query_heads"} <= {*self.kinds}:
            raise ValueError(f"{given}; cut one, then the other")
        if self.form not in (None, *FORMS):
            raise ValueError(f"export: {self.form} given, valid is {', '.join(FORMS)}")
        check_cost(self.cost)
        if self.cost == "kv" and not {"head_groups", "blocks", "attention"} & {*self.kinds}:
            said = f"cost: kv given for {', '.join(self.kinds)}"
            raise ValueError(f"{said}, valid is kv for head_groups, for blocks, or for attention")
        if self.shares is not None:
            self._check_shares(self.shares)
        if self.left is not None and (self.in_depth or self.shares is not None):
            raise ValueError("allocator: counts of units given beside shares or a cut in depth; valid is one of them")

    def _check_shares(self, shares: tuple[float, ...]) -> None:
        if self.in_depth:
            kinds = " and ".join(self.kinds)
            raise ValueError(f"allocator: shares of each block given, but whole {kinds} go or stay; leave it out")
        if wrong := [share for share in shares if not 0 <= share < 1]:
            raise ValueError(f"allocator: a share of {wrong[0]:g} given, valid is 0 or more and less than 1")
        if not shares or abs(fmean(shares) - self.budget) > SHOWN:
            given = f"shares of a mean of {fmean(shares):.4g}" if shares else "no shares"
            raise ValueError(f"allocator: {given} given, valid is a mean of {self.budget:g}, which is the budget")

    @property
    def in_depth(self) -> bool:
        """Whether what goes are blocks, attentions or FFNs, each whole, and no units of them."""
        return of_depth(self.kinds)

    @property
    def share(self) -> Share:
        """What goes of all blocks, or of each."""
        return self.budget if self.shares is None else self.shares


def cut_model(
    model: PreTrainedModel,
    scores: Scores,
    cut: Cut,
    batches: Sequence[Tensor],
    *,
    device: torch.device | str | None = None,
    on_block: Callable[[SliceRow, list[Slice]], None] | None = None,
) -> CutRows:
    """Make `cut` in `model`, in place; a row for every block left, piece that went whole, and way that was measured.

    What really went of the cost is counted on the model that is left.

    `scores`: of each block, by kind (tasks.calibrate.importance). `batches` also tell how the budget is divided between
    heads and channels (tasks.prune.structure.split). All else is as of `slice_model`.

    Raises ValueError as `choose_split` and `slice_model`, and in depth as `choose_depth`.
    """
    before, flops = sum(costs_of(model, cut.cost)), flops_of(model)
    if cut.in_depth:
        pieces = choose_depth(model, scores, cut.budget, kinds=cut.kinds, cost=cut.cost)
        left, removals = cut_depth(model, pieces, device=device, on_block=on_block)
        removed = 1 - sum(costs_of(model, cut.cost)) / before
        return CutRows(blocks=left, removals=removals, removed=removed, removed_flops=_flops_gone(model, flops))
    choice, splits = chosen_units(model, scores, cut, batches, device)
    repairs: list[RepairRow] = []
    cut_blocks = slice_model(
        model,
        choice.kept,
        batches,
        repair=cut.repair,
        device=device,
        on_block=on_block,
        on_settled=repairs.extend,
    )
    return CutRows(
        blocks=tuple(cut_blocks),
        splits=tuple(splits),
        repairs=tuple(repairs),
        removed=1 - sum(costs_of(model, cut.cost)) / before,
        removed_flops=_flops_gone(model, flops),
    )


def chosen_units(
    model: PreTrainedModel,
    scores: Scores,
    cut: Cut,
    batches: Sequence[Tensor],
    device: torch.device | str | None = None,
) -> tuple[Choice, list[SplitRow]]:
    """The units that stay by `cut`, and the ways to divide its budget that were measured: none where counts are given.

    Where `cut` asks for a form, only ways that it can express. Raises ValueError as `choose_split` and `choose_counts`.
    """
    if cut.left is not None:
        counts = [{kind: n for kind, n in zip(cut.kinds, of_block, strict=True) if n} for of_block in cut.left]
        return choose_counts(model, scores, counts, cut.cost), []
    return choose_split(
        model,
        scores,
        cut.share,
        batches,
        cost=cut.cost,
        kinds=cut.kinds,
        round_to=cut.round_to,
        repair=cut.repair,
        able=lambda choice: cut.form is None or cut.form not in _refusals(model, choice),
        device=device,
    )


def best_form(refusals: Mapping[str, str], asked: str | None) -> str:
    """The form `asked` for, or the first of BEST_FORMS, that none of the `refusals` (`refusals_of`) is of.

    Raises ValueError where there is none: it says why this one cannot express the cut, and which of the others can.
    """
    able = ", ".join(form for form in FORMS if form not in refusals) or "none"
    if asked is not None and asked in refusals:
        raise ValueError(f"export: {asked} cannot express this cut: {refusals[asked]}; valid is {able}")
    for form in BEST_FORMS if asked is None else (asked,):
        if form not in refusals:
            return form
    raise ValueError(f"export: none given, and no form can express this cut: {_listed(refusals, FORMS)}")


def passed_over(refusals: Mapping[str, str], form: str) -> str | None:
    """Why those of BEST_FORMS that come before `form` were not taken; None where it is the first."""
    return _listed(refusals, BEST_FORMS[: BEST_FORMS.index(form)]) or None


def _listed(refusals: Mapping[str, str], forms: Iterable[str]) -> str:
    return "; ".join(f"{form}: {refusals[form]}" for form in forms)


def check_cut(model: PreTrainedModel, cut: Cut) -> None:
    """Raises ValueError where `model` has no such units, no such share of it can go, or no form can express the rest.

    It is tried with scores that are all equal, without a text, and undone.
    """
    count = len(find_blocks(model)[1])
    if cut.shares is not None and len(cut.shares) != count:
        raise ValueError(f"allocator: {len(cut.shares)} shares given, the model has {count} blocks")
    with _tried(model, cut):
        refusals = refusals_of(model)
    if cut.in_depth or cut.form not in refusals or not _another_way(model, cut):
        best_form(refusals, cut.form)


def _another_way(model: PreTrainedModel, cut: Cut) -> bool:
    """Whether the form can express one of the ways to divide the budget between heads and channels."""
    ways = choices(model, _equal_scores(model), cut.share, cost=cut.cost, kinds=cut.kinds, round_to=cut.round_to)
    return any(cut.form not in _refusals(model, way) for way in ways)


def _refusals(model: PreTrainedModel, choice: Choice) -> dict[str, str]:
    """`refusals_of` the model that is cut so; it is whole again then."""
    with slice_units(model, choice.kept):
        return refusals_of(model)


@contextmanager
def _tried(model: PreTrainedModel, cut: Cut) -> Iterator[None]:
    scores = _equal_scores(model)
    if cut.in_depth:
        made = slice_depth(model, choose_depth(model, scores, cut.budget, kinds=cut.kinds, cost=cut.cost))
    else:
        choice = choose(model, scores, cut.share, cost=cut.cost, kinds=cut.kinds, round_to=cut.round_to)
        made = slice_units(model, choice.kept)
    with made:
        yield


def _flops_gone(model: PreTrainedModel, before: int | None) -> float | None:
    after = flops_of(model)
    return None if before is None or after is None else 1 - after / before


def _equal_scores(model: PreTrainedModel) -> Scores:
    return [
        {kind: torch.zeros(units.count) for kind, units in of_block.kinds.items()}
        | {kind: torch.zeros(1) for kind in WHOLE}
        for of_block in units_of(model)
    ]

"""How a flow lets an allocator search: what differs between the parts, the table of levels if asked for, the search."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.allocator_choices import Searching
from flows.prepare import Found
from tasks.handles import Tokens
from tasks.stage import Stages
from tasks.train_controller.allocators.results import OfUnits, OfWeights, Searched
from tasks.train_controller.allocators.rows import LevelRow, SearchRow
from tasks.train_controller.allocators.task import describe_blocks, measure_levels, search_allocation


@dataclass(frozen=True, kw_only=True)
class Divided:
    """What a search found, and the table of levels, empty where nobody asked for it."""

    searched: Searched
    table: Sequence[LevelRow]


def search(
    stages: Stages, parameters: Searching, found: Found, calibration: Tokens, of: OfUnits | OfWeights
) -> Divided:
    """Divide the budget of `of` by the allocator of the parameters, which name one that searches."""
    assert parameters.search is not None
    on_calibration: dict[str, Any] = {"model": found.model, "calibration": calibration, "device": found.device}
    looking: dict[str, Any] = {"of": of, "tokens": parameters.tokens_to_look_at}
    blocks = stages(describe_blocks, **on_calibration)
    table = stages(measure_levels, **on_calibration, **looking) if parameters.measure_levels else ()
    searched: Searched = stages(
        search_allocation,
        **on_calibration,
        **looking,
        searcher=parameters.search.build(),
        name=parameters.search.method,
        seed=parameters.seed,
        blocks=blocks,
        table=table,
    )
    allocator = replace(searched.allocator, cached=stages.rows[-1].cached)
    return Divided(searched=replace(searched, allocator=allocator), table=table)


def tables_of(divided: Divided | None) -> dict[str, Sequence[Any]]:
    """As they are recorded; none where nothing was searched."""
    return {} if divided is None else {**divided.searched.tables, "levels": divided.table}


def moves_of(divided: Divided | None) -> Sequence[SearchRow]:
    return () if divided is None else divided.searched.moves

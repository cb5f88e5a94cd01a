"""What a flow is told of an allocator that searches: which, at how much text it may look, what is measured before."""

import json
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from flows.methods import SEARCHER_CHOICES, Choice, parse_choice
from flows.recoveries import Recovering
from tasks.train_controller.allocators.judge import divided_sizes

TOKENS = 1_000_000  # looked at, where nobody says how many
SHARES = "a JSON file with a share of each block, such as [0.2, 0.4]"
if TYPE_CHECKING:
    SearcherChoice = Choice
else:
    SearcherChoice = Annotated[reduce(or_, SEARCHER_CHOICES.values()), Field(discriminator="method")]


def _shared(given: Any) -> Any:
    """`uniform`, `rl,updates=40`, a JSON list such as `[0.2, 0.4]`, or a file with one, which is read once and here."""
    if not isinstance(given, str) or given == "uniform":
        return given
    if given.partition(",")[0] in SEARCHER_CHOICES:
        return parse_choice("allocator", given, SEARCHER_CHOICES)
    valid = f"valid is uniform, {', '.join(SEARCHER_CHOICES)}, or {SHARES}"
    try:
        shares = json.loads(given if given.startswith("[") else Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"allocator: {given!r} given, which cannot be read ({error}); {valid}") from error
    if not isinstance(shares, list) or not all(type(share) in (int, float) for share in shares):
        raise ValueError(f"allocator: {json.dumps(shares)} given in {given!r}; {valid}")
    return tuple(shares)


Shared = Annotated[Literal["uniform"] | tuple[float, ...] | SearcherChoice, BeforeValidator(_shared)]


class Searching(Recovering):
    """What the flows are told whose budget an allocator may divide."""

    allocator_tokens: int | None = Field(
        None, ge=1, lt=1 << 63, description=f"what an allocator that searches may look at; by default {TOKENS:,}"
    )
    measure_levels: bool = Field(False, description="measure each part alone at each of its levels, for the search")

    @property
    def search(self) -> Choice | None:
        """The allocator that searches, if it is one."""
        raise NotImplementedError

    @property
    def tokens_to_look_at(self) -> int:
        return self.allocator_tokens or TOKENS

    @model_validator(mode="after")
    def _a_search_is_there_for_its_options(self) -> Self:
        for name, given in (("allocator_tokens", self.allocator_tokens), ("measure_levels", self.measure_levels)):
            if given and self.search is None:
                raise ValueError(f"{name}: given, but nothing is searched; valid with {', '.join(SEARCHER_CHOICES)}")
        return self

    def check_windows(self, window: int) -> None:
        """ValueError where the calibration windows are too few, or the tokens pay for no look at windows so long."""
        if self.search is not None:
            if self.samples < (least := self.search.build().least_windows):
                raise ValueError(f"samples: {self.samples} given, {self.search.method} needs {least} or more")
            divided_sizes(self.samples, window, self.tokens_to_look_at)

    def search_words(self) -> list[str]:
        """Those of the command line."""
        return self._changed("allocator_tokens") + (["--measure-levels"] if self.measure_levels else [])

"""The sources that have a name: which split each role reads, and how rows become documents."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from tasks.data.protocols import PROTOCOLS, Protocol

ROLES = ("training", "calibration", "evaluation")
PARQUET_EXPORT = "refs/convert/parquet"  # of sets whose own files are a script, which `datasets` no longer runs


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Where a source is and how it is read. `hub` is empty for the built-in text.

    join: what stands between the rows of the one document that they become; None: every row is a document.
    first: so many rows are read, streamed, of a set too large to be fetched whole. Where such a set has one split only,
    evaluation reads as many after those, so that nothing is scored on what it was calibrated on.
    protocol: what evaluation reads its rows by, in the place of `join` and `first`.
    """

    training: str = "train"
    calibration: str = "train"
    evaluation: str = "train"
    hub: str = ""
    config: str | None = None
    revision: str | None = None
    field: str = "text"
    join: str | None = None
    first: int | None = None
    protocol: Protocol | None = None

    def split_of(self, role: str) -> str:
        """The split that a role reads; ValueError for a role that there is not."""
        if role not in ROLES:
            raise ValueError(f"role: {role!r} is unknown; choose one of {', '.join(ROLES)}")
        return str(getattr(self, role))

    def rows_of(self, role: str) -> slice:
        """The rows of its split that a role reads."""
        if self.first is None:
            return slice(None)
        start = self.first if role == "evaluation" and self.evaluation == self.calibration else 0
        return slice(start, start + self.first)

    def documents_of(self, rows: Iterable[str], role: str) -> list[str]:
        """The documents that a role makes of the texts of rows."""
        if self.protocol is not None and role == "evaluation":
            return [self.protocol.text_of(rows)]
        part, as_row = self.rows_of(role), self.protocol.as_row if self.protocol is not None else str
        texts = [as_row(row) for row in islice(rows, part.start, part.stop)]
        return texts if self.join is None else [self.join.join(texts)]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.split_of(role) for role in ROLES))


SOURCES: dict[str, Registered] = {
    "docs": Registered(calibration="calibration", evaluation="evaluation"),
    "wikitext2": Registered(
        hub="Salesforce/wikitext",
        config="wikitext-2-raw-v1",
        evaluation="test",
        join="\n\n",
        protocol=PROTOCOLS["wikitext2"],
    ),
    "ptb": Registered(
        hub="ptb-text-only/ptb_text_only",
        revision=PARQUET_EXPORT,
        evaluation="test",
        field="sentence",
        join=" ",
        protocol=PROTOCOLS["ptb"],
    ),
    "c4": Registered(hub="allenai/c4", config="en", evaluation="validation", first=4_000, protocol=PROTOCOLS["c4"]),
    "slimpajama": Registered(hub="DKYoon/SlimPajama-6B", evaluation="validation", first=4_000),
    "openhermes": Registered(hub="teknium/OpenHermes-2.5", field="conversations", first=4_000),
    "bookcorpus": Registered(hub="bookcorpus/bookcorpus", revision=PARQUET_EXPORT, join=" ", first=100_000),
}

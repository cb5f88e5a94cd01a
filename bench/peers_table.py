"""The rows beside other libraries as Markdown and as JSON: the JSON holds every raw time, the Markdown is a view."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.peers_compare import PeerRow
from bench.sides import ONE_PASS, SAME_ORDER
from bench.stored import store
from bench.timing import paired_ratio

MIB = 2**20
BY = {ONE_PASS: "by group", SAME_ORDER: "by block"}
HEAD = (
    *("method", "pattern", "side", "wall, s"),
    *(f"{order} is times faster" for order in BY.values()),
    "peak, MiB",
    *(f"{order} / its" for order in BY.values()),
    *(f"IoU, {order}" for order in BY.values()),
    *("error", "ppl"),
)


@dataclass(frozen=True, kw_only=True)
class PeerBench:
    """One run. `load`: the machine's load average at its start, and at its end with its own load."""

    command: str
    date: str  # ISO 8601, UTC
    machine: str
    versions: dict[str, dict[str, str]]  # side -> package -> version
    threads: int
    rounds: int
    load: tuple[float, float]
    skipped: tuple[str, ...]
    about: dict[str, str]  # of each subject
    rows: tuple[PeerRow, ...]


def write(bench: PeerBench, folder: Path, name: str) -> str:
    """Store `<date>-<name>.json` and `<name>.md` in `folder`; returns the Markdown."""
    return store(asdict(bench), markdown(bench), folder, name)


def markdown(bench: PeerBench) -> str:
    """A table per subject, method and pattern, after the circumstances under which they were measured."""
    start, end = bench.load
    lines = [
        "# One-shot pruning beside other libraries",
        "",
        f"{bench.date}, `{bench.command}`; threads: {bench.threads}, rounds of sides taking turns: {bench.rounds}.",
        f"Machine: {bench.machine}, load average {start:.1f} at the start and {end:.1f} at the end.",
        *(
            f"{side}: {', '.join(map(' '.join, packages.items()))}."
            for side, packages in bench.versions.items()
            if packages
        ),
        "",
        "Each side prunes the same checkpoint with the same windows, in a process and an environment of its own; ours",
        "does so in both orders. Wall time is that of pruning alone, the median over the rounds; “times faster” is the",
        "geometric mean of its time / ours over the rounds, with its 95 % interval. Peak memory is what the run needs",
        "above the loaded model, the median over the rounds; beside it, ours as a share of it. IoU compares the keeps",
        "of finished models. Error is the squared distance of the last hidden states to those of the dense model on",
        "held-out text, relative to their square.",
        *(f"Skipped: {line}." for line in bench.skipped),
    ]
    for model, about in bench.about.items():
        rows = [row for row in bench.rows if row.model == model]
        lines += ["", f"## {model}: {about}", "", *_table(rows), "", *_not_run(rows)]
    return "\n".join(lines).rstrip() + "\n"


def _table(rows: Sequence[PeerRow]) -> list[str]:
    """A line per side that was run; method and pattern stand on the first."""
    ran: dict[tuple[str, str], dict[str, PeerRow]] = {}
    for row in rows:
        if row.not_run is None:
            ran.setdefault((row.method, row.pattern), {})[row.side] = row
    lines = [HEAD, ["---"] * len(HEAD)]
    for case, sides in ran.items():
        for number, row in enumerate(sides.values()):
            lines.append([*(case if number == 0 else ("", "")), *_cells(row, sides)])
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _cells(row: PeerRow, sides: Mapping[str, PeerRow]) -> list[str]:
    ours = [sides.get(order) if row.side not in BY else None for order in BY]
    peak = median(row.peak_bytes)
    return [
        row.side,
        f"{median(row.times_s):.2f}",
        *(str(paired_ratio(row.times_s, each.times_s)) if each else "" for each in ours),
        f"{peak / MIB:.1f}",
        *(f"{median(each.peak_bytes) / peak:.2f}" if each and peak > 0 else "" for each in ours),
        *(f"{row.iou[order]:.5f}" if order in row.iou and order != row.side else "" for order in BY),
        f"{row.error:.4f}",
        f"{row.ppl:.3f}" if row.ppl is not None else "",
    ]


def _not_run(rows: Sequence[PeerRow]) -> list[str]:
    """A line per side and reason, with the cases it stands for."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.not_run is not None:
            cases.setdefault((row.side, row.not_run), []).append(f"{row.method} {row.pattern}")
    return [f"- Not run: {side}, {', '.join(where)}: {why}." for (side, why), where in cases.items()]

"""The measured rows as Markdown and as JSON: the JSON holds every raw time, the Markdown is a view of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.pruning import PruningRow
from bench.selection import SelectionRow
from bench.sides import ESPALIER, TEXTBOOK
from bench.stored import store, table
from bench.sweep import SweepRow
from bench.timing import paired_ratio

MIB = 2**20
SELECTION_HEAD = ("model", "linear", "pattern", "method", "textbook, ms", "Espalier, ms", "times faster", "IoU")
SWEEP_HEAD = ("model", "pattern", "textbook, ms", "Espalier, ms", "times faster", "IoU")
PRUNING_HEAD = ("model", "method", "pattern", "IoU", "", "wall, s", "times faster", "peak, MiB", "of textbook")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One run of the benchmark. `load`: the machine's load average at its start, and at its end with its own load."""

    command: str
    date: str  # ISO 8601, UTC
    machine: str
    versions: str
    threads: int
    rounds: int
    load: tuple[float, float]
    skipped: tuple[str, ...]
    selections: tuple[SelectionRow, ...]
    sweeps: tuple[SweepRow, ...]
    prunings: tuple[PruningRow, ...]


def write(bench: Bench, folder: Path, name: str) -> str:
    """Store `<date>-<name>.json` and `<name>.md` in `folder`; returns the Markdown."""
    return store(asdict(bench), markdown(bench), folder, name)


def markdown(bench: Bench) -> str:
    """The tables, after the circumstances under which they were measured."""
    start, end = bench.load
    lines = [
        "# One-shot pruning against the textbook formulation",
        "",
        f"{bench.date}, `{bench.command}`; {bench.threads} threads, {bench.rounds} rounds of sides taking turns.",
        f"Machine: {bench.machine}, load average {start:.1f} at the start and {end:.1f} at the end.",
        f"Versions: {bench.versions}.",
        "",
        "Times are medians; “times faster” is the geometric mean of textbook / Espalier over the rounds, with its 95 %",
        "interval. Peak memory is what a run in a fresh process needs above the loaded model. IoU is that of the keeps",
        "where both prune every linear on the same inputs.",
        *(f"Skipped: {line}." for line in bench.skipped),
        "",
        "## Whole models, calibration included",
        "",
        *table(PRUNING_HEAD, (cells for row in bench.prunings for cells in _pruning_cells(row))),
        "",
        "## SparseGPT on one block without its forward, from the inputs of the linears to the pruned weights",
        "",
        *table(SWEEP_HEAD, ([row.model, row.pattern, *_pair_cells(row)] for row in bench.sweeps)),
        "",
        "## Selection alone, from a score to a keep",
        "",
        *table(SELECTION_HEAD, map(_selection_cells, bench.selections)),
    ]
    return "\n".join(lines) + "\n"


def _pruning_cells(row: PruningRow) -> list[list[str]]:
    """A line per side; what belongs to the whole row stands on its first line."""
    lines = []
    for side, times in row.times_s.items():
        peak = row.peak_bytes[side]
        head, faster, share = [row.model, row.method, row.pattern, f"{row.iou:.5f}"], "", ""
        if side != TEXTBOOK:
            head = [""] * len(head)
            faster = str(paired_ratio(row.times_s[TEXTBOOK], times))
            share = f"{peak / row.peak_bytes[TEXTBOOK]:.2f}"
        lines.append([*head, side, f"{median(times):.2f}", faster, f"{peak / MIB:.1f}", share])
    return lines


def _selection_cells(row: SelectionRow) -> list[str]:
    return [row.model, f"{row.shape[0]} × {row.shape[1]}", row.pattern, row.method, *_pair_cells(row)]


def _pair_cells(row: SelectionRow | SweepRow) -> list[str]:
    slow, fast = row.times_s[TEXTBOOK], row.times_s[ESPALIER]
    return [*(f"{median(side) * 1e3:.2f}" for side in (slow, fast)), str(paired_ratio(slow, fast)), f"{row.iou:.5f}"]

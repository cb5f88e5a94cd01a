"""What was measured on a GPU as Markdown and as JSON: the JSON holds every raw time, the Markdown is a view of it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.gpu_linear import DENSE, SEMI_STRUCTURED, KernelRow
from bench.gpu_pruning import RunRow
from bench.stored import store, table
from bench.timing import paired_ratio

GIB = 2**30
TRIAL = "**Tried out on a CPU: no number here says anything about a GPU, and both sides of a product are dense.**"
KERNEL_HEAD = ("linear", "tokens", "dense, µs", "2:4, µs", "2:4 is times faster", "", "difference")
RUN_HEAD = ("method", "pattern", "order", "wall, s", "s a block", "peak beyond a block, GiB", "zeros")


@dataclass(frozen=True, kw_only=True)
class GPUBench:
    """One run."""

    command: str
    date: str  # ISO 8601, UTC
    machine: str
    versions: str
    trial: bool  # whether it ran on a CPU, to see that it runs
    rounds: int
    shape: str
    blocks: int
    windows: int
    window: int
    windows_at_once: int
    kernels: tuple[KernelRow, ...]
    runs: tuple[RunRow, ...]


def write(bench: GPUBench, folder: Path, name: str) -> str:
    """Store `<date>-<name>.json` and `<name>.md` in `folder`; returns the Markdown."""
    return store(asdict(bench), markdown(bench), folder, name)


def markdown(bench: GPUBench) -> str:
    """The tables, after the circumstances under which they were measured."""
    lines = [
        "# Pruning and 2:4 kernels on a GPU",
        "",
        *([TRIAL, ""] if bench.trial else []),
        f"{bench.date}, `{bench.command}`.",
        f"Machine: {bench.machine}.",
        f"Versions: {bench.versions}.",
        "",
        "## A 2:4 linear by torch's semi-structured kernels, beside the same one dense, bfloat16",
        "",
        "A linear is outputs × inputs; its weights come from memory, not from a cache. Times are medians over",
        f"{bench.rounds} rounds of sides taking turns; “times faster” is the geometric mean of dense / 2:4 over the",
        "rounds, with its 95 % interval. The difference is that of the outputs, relative to the dense ones.",
        "",
        *table(KERNEL_HEAD, map(_kernel_cells, bench.kernels)),
        "",
        f"## A Llama of shape {bench.shape}, {bench.blocks} blocks, random weights in bfloat16",
        "",
        f"Calibrated on {bench.windows} windows of {bench.window} random tokens, {bench.windows_at_once} at once. Each",
        "was run once, with the model in the host's memory and a block at a time on the device. The peak is that of",
        "the device's reserved memory, the weights of one block taken off.",
        "",
        *table(RUN_HEAD, (_run_cells(row, bench.blocks) for row in bench.runs)),
    ]
    return "\n".join(lines) + "\n"


def _kernel_cells(row: KernelRow) -> list[str]:
    dense, sparse = row.times_s[DENSE], row.times_s[SEMI_STRUCTURED]
    ratio = paired_ratio(dense, sparse)
    verdict = "loss" if ratio.high < 1 else "gain" if ratio.low > 1 else "no difference"
    times = [f"{median(side) * 1e6:.1f}" for side in (dense, sparse)]
    return [f"{row.shape[0]} × {row.shape[1]}", str(row.tokens), *times, str(ratio), verdict, f"{row.difference:.4f}"]


def _run_cells(row: RunRow, blocks: int) -> list[str]:
    peak = "not counted" if row.peak_bytes is None else f"{row.peak_bytes / GIB:.2f}"
    times = [f"{row.seconds:.1f}", f"{row.seconds / blocks:.2f}"]
    return [row.method, row.pattern, row.order, *times, peak, f"{100 * row.sparsity:.2f} %"]

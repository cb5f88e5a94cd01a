"""What was measured of a model larger than memory, as JSON and as Markdown."""

from dataclasses import asdict, dataclass
from pathlib import Path

from bench.stored import store

HEAD = "| method | stage | seconds | peak resident, MB |"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row per method per stage, the dense model's evaluation among them. `peak_bytes`: the most that was resident.

    That counts pages of files, which the kernel drops when it needs them, and what Python and its libraries take.
    """

    method: str
    stage: str
    seconds: float
    peak_bytes: int
    hash: str | None  # of the checkpoint that the stage made
    nll: float | None  # that it measured, in nats per token; of random weights, so a check of nothing but sameness


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A pruning that was killed with `done` blocks in its journal and started again, for `seconds`."""

    method: str
    done: int
    seconds: float
    same_bytes: bool


@dataclass(frozen=True, kw_only=True)
class LargeBench:
    """One run of the benchmark, as far as it has come."""

    command: str
    date: str  # ISO 8601, UTC
    machine: str
    versions: str
    threads: int
    limit_bytes: int
    model_bytes: int
    blocks: int
    width: int
    calibration_tokens: int
    evaluation_tokens: int
    measured: tuple[Measured, ...] = ()
    resumed: Resumed | None = None
    ended_early: bool = False  # the time was up before all was done


def write(bench: LargeBench, folder: Path, name: str = "larger-than-memory") -> str:
    """Store `<date>-<name>.json` and `<name>.md` in `folder`; returns the Markdown."""
    return store(asdict(bench), markdown(bench), folder, name)


def markdown(bench: LargeBench) -> str:
    lines = [
        "# A model larger than memory",
        "",
        f"{bench.date}, `{bench.command}`; {bench.threads} threads.",
        f"Machine: {bench.machine}.",
        f"Versions: {bench.versions}.",
        "",
        f"{bench.model_bytes / 1e9:.2f} GB of float32 weights ({bench.blocks} blocks of width {bench.width}), pruned "
        f"to 2:4 on {bench.calibration_tokens} tokens, packed,",
        f"evaluated on {bench.evaluation_tokens} tokens, by processes that the kernel would kill above "
        f"{bench.limit_bytes / 1e9:.2f} GB.",
        *(["The time was up before all was done."] if bench.ended_early else []),
        "",
        HEAD,
        "| --- | --- | --- | --- |",
        *(f"| {row.method} | {row.stage} | {row.seconds:.0f} | {row.peak_bytes / 1e6:.0f} |" for row in bench.measured),
    ]
    if bench.resumed is not None:
        same = "the same" if bench.resumed.same_bytes else "OTHER"
        lines += [
            "",
            f"{bench.resumed.method}, killed with {bench.resumed.done} of {bench.blocks} blocks in its journal and run "
            f"again: {bench.resumed.seconds:.0f} s for the rest, {same} bytes.",
        ]
    return "\n".join(lines) + "\n"

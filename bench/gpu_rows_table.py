"""What bench.gpu_rows measured, as Markdown."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.timing import paired_ratio

SIDES = CUBLAS, ROWS = "cuBLAS", "kept rows"
TO_REACH = {0.4: 1.4, 0.5: 1.6}  # by share dropped
TRIAL = "**Tried out on a CPU: no number here says anything about a GPU, and rows are gathered instead.**"
HEAD = ("linears", "outputs × inputs", "dropped", "cuBLAS, µs", "kept rows, µs", "times faster", "to reach")
HEAD += ("of the bound", "difference")


def markdown(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, after the circumstances under which it was measured; below each share all products of a block."""
    shares = dict.fromkeys(row["share"] for row in rows)
    lines = [
        "# A product that reads kept rows alone, on a GPU",
        "",
        *([TRIAL, ""] if facts["trial"] else []),
        f"{facts['date']}, `{facts['command']}`.",
        f"Machine: {facts['machine']}.",
        f"Versions: {facts['versions']}.",
        "",
        "One token, bfloat16, a threshold applied within the product; weights come from memory, not a cache. Times",
        f"are medians over {facts['rounds']} rounds of sides taking turns, each a CUDA graph; “times faster” is the",
        "geometric mean of cuBLAS / kept rows over the rounds, with its 95 % interval. The bound is that of the bytes:",
        "1 / (1 - dropped). The difference is that of the outputs to float64, relative.",
        "",
        f"| {' | '.join(HEAD)} |",
        f"| {' | '.join('---' for _ in HEAD)} |",
        *(_line(row) for share in shares for row in _with_block([row for row in rows if row["share"] == share])),
    ]
    return "\n".join(lines) + "\n"


def _with_block(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of one share, and their sum."""
    weights = [row["shape"][0] * row["shape"][1] for row in rows]
    kept = sum((1 - row["dropped"]) * weight for row, weight in zip(rows, weights, strict=True))
    times = {side: [sum(each) for each in zip(*(row["times_s"][side] for row in rows), strict=True)] for side in SIDES}
    block = {"linears": "a block", "shape": None, "share": rows[0]["share"], "dropped": 1 - kept / sum(weights)}
    return [*rows, block | {"times_s": times, "difference": max(row["difference"] for row in rows)}]


def _line(row: Mapping[str, Any]) -> str:
    slow, fast = (row["times_s"][side] for side in SIDES)
    ratio, goal = paired_ratio(slow, fast), TO_REACH.get(row["share"])
    reached = "" if goal is None else f"{goal}: {'met' if ratio.mean >= goal else 'missed'}"
    cells = [
        row["linears"],
        "" if row["shape"] is None else f"{row['shape'][0]} × {row['shape'][1]}",
        f"{row['dropped']:.1%}",
        *(f"{median(side) * 1e6:.1f}" for side in (slow, fast)),
        str(ratio),
        reached,
        f"{ratio.mean * (1 - row['dropped']):.2f}",
        f"{row['difference']:.4f}",
    ]
    return f"| {' | '.join(cells)} |"

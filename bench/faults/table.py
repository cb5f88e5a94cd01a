"""The table of what was tried, from the stored lines."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.stored import table

WHAT = {
    "kill_flow": "SIGKILL of the command at a random moment",
    "kill_server": "SIGKILL of its Prefect server at a random moment",
    "kill_both": "SIGKILL of both at a random moment",
    "damage": "a file of the store or of the results cut short, altered, removed or emptied",
    "fill_disk": "a file system with room for a part of the run",
    "limit_files": "files that may not grow beyond a size (RLIMIT_FSIZE)",
    "hold_duckdb": "another process holds espalier.duckdb",
    "damage_duckdb": "espalier.duckdb is garbage",
    "hold_mlflow": "another process holds MLflow's database",
    "damage_mlflow": "MLflow's database is garbage",
    "damage_prefect": "Prefect's database is garbage",
    "clock_behind": "a clock a year behind, then the true one",
    "clock_ahead": "a clock a year ahead, then the true one",
    "same_twice": "the same run twice at once",
    "eight_at_once": "eight runs at once",
}
HEAD = ("fault", "tries", "ended right", "clear error", "unclear", "same bytes afterwards", "what it says")


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    tries = [line for line in lines if "cell" in line]
    rows = []
    for fault in dict.fromkeys(name for name in WHAT if any(line["cell"]["fault"] == name for line in tries)):
        of = [line for line in tries if line["cell"]["fault"] == fault]
        right = [line for line in of if line["right"]]
        told = [line for line in of if not line["right"] and line["clear"] and line["code"]]
        said = Counter(line["said"] for line in told if line["said"]).most_common(1)
        killed = [line for line in of if line["code"] == -9]
        unclear = len(of) - len(right) - len(told) - len(killed)
        same = sum(line["same"] for line in of)
        words = said[0][0][:160].replace("|", "/") if said else ""
        rows.append(
            (WHAT[fault], str(len(of)), str(len(right)), str(len(told)), str(unclear), f"{same} of {len(of)}", words)
        )
    return "\n".join(
        [
            "# Faults",
            "",
            "A oneshot of stories260K, disturbed; then the same command once more, which must come to the same scores,",
            "zeros in each linear and hashes of the stored models as a run that nothing disturbs. A command that was",
            "killed says nothing, so of these the last but one column counts. From `faults.jsonl`, by",
            "`python -m bench.faults`.",
            "",
            *table(HEAD, rows),
            "",
        ]
    )

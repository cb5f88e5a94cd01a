"""Runs at the same moment in the same artifacts: the same one twice, and eight that differ."""

from typing import Any

from bench.faults.subject import WORDS, Ended, end, facts, start
from bench.faults.tries import Try, judged
from tasks.record.metrics import query

SEEDS = 8


def same_twice(of: Try) -> dict[str, Any]:
    started = [start(of.artifacts) for _ in range(2)]
    ended = [end(run) for run in started]
    worse = max(ended, key=lambda each: each.code)
    same = all(each.code == 0 and facts(of.artifacts, each) == of.expected for each in ended)
    return judged(of, worse) | {"both_same": same, "runs": _runs()}


def eight_at_once(of: Try) -> dict[str, Any]:
    """Of eight seeds, each with rows of its own; then each is given again alone, and must find the same."""
    words = [[*WORDS, "--seed", str(seed)] for seed in range(SEEDS)]
    ended = [end(run) for run in [start(of.artifacts, each) for each in words]]
    found = [facts(of.artifacts, each) if each.code == 0 else None for each in ended]
    lost = _rows_lost(SEEDS - found.count(None))
    alone = [end(start(of.artifacts, each)) for each in words]
    same = [each.code == 0 and facts(of.artifacts, each) == was for each, was in zip(alone, found, strict=True)]
    worse: Ended = max(ended, key=lambda each: each.code)
    line = {"code": worse.code, "right": None not in found and not lost, "clear": all(each.is_clear for each in ended)}
    line |= {"said": worse.said if worse.code else "", "again_code": max(each.code for each in alone), "again_said": ""}
    return line | {"same": all(same), "rows_lost": lost, "runs": _runs()}


def _runs() -> int:
    return len(query("select run from runs"))


def _rows_lost(runs: int) -> int:
    """Of the rows that so many runs must have left, those that are not there: 35 linears of five blocks, and so on."""
    expected = {"runs": 1, "linears": 35, "blocks": 5, "evaluations": 2, "artifacts": 2, "datasets": 2}
    counted = {table: query(f"select count(*) as n from {table}")[0]["n"] for table in expected}
    return sum(each * runs - counted[table] for table, each in expected.items())

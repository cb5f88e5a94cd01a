"""Which figures a page has of a run-time controller; of several floors it is the middle one that is drawn."""

import json
import math
from collections.abc import Sequence
from statistics import fmean

from tasks.record.metrics import query_named
from tasks.record.pages.controller_figures import (
    by_episode,
    memory,
    perplexity_by_length,
    quality_by_speed,
    speed_by_source,
    time_breakdown,
)
from tasks.record.pages.learning_figures import action_use, cumulative_reward, epsilon_by_step, reward_by_step
from tasks.record.pages.tables import Row

GIVEN = ("oracle", "best fixed", "random", "dense")  # policies that nobody learned
PHASES = ("prefill_ms", "switch_ms", "decoding_ms")


def drawings(run: str, rows: Sequence[Row], uses: Sequence[Row]) -> dict[str, str]:
    """Caption -> SVG, from the `rows` of queries/controllers.sql and `uses` of queries/uses.sql."""
    floors = sorted({row["floor"] for row in rows})
    floor = floors[len(floors) // 2]
    learned = [row for row in rows if row["floor"] == floor and is_learned(row) and _is_whole(row["policy"])]
    at = f"Floor {100 * floor:g} %"
    return {
        **_of_episodes(run, floor, at, learned),
        **_of_learning(run, floor, at),
        **_of_actions(run, at, learned),
        "Which actions are taken on the test prompts.": action_use(
            [row for row in uses if not row["live"] and _is_whole(row["policy"]) and row["policy"] not in GIVEN[2:]]
        ),
    }


def is_learned(row: Row) -> bool:
    """Whether a row of queries/controllers.sql is of a policy that was learned."""
    return row["policy"] not in GIVEN


def _is_whole(policy: str) -> bool:
    """Not of an ablation, whose name says what it does without."""
    return policy in GIVEN or " " not in policy


def _of_episodes(run: str, floor: float, at: str, learned: Sequence[Row]) -> dict[str, str]:
    """Prompt by prompt, what was chosen beside dense."""
    [parameters] = [json.loads(row["parameters"]) for row in query_named("scope", run=run)]
    rows = [_with_times(row, parameters["tokens"]) for row in query_named("chosen", run=run) if row["floor"] == floor]
    if not rows:
        return {}
    return {
        f"{at}: tokens per second of each answer.": by_episode(rows, "tokens_per_s", "tokens per second", "speed"),
        f"{at}: time of each answer.": by_episode(rows, "answer_ms", "milliseconds", "time"),
        f"{at}: perplexity of the reference that follows each prompt.": by_episode(
            rows, "ppl_after", "perplexity of the reference", "perplexity", log=True
        ),
        f"{at}: where the time of an answer goes.": time_breakdown(_parts(rows, learned)),
        "Length and perplexity of the prompts.": perplexity_by_length(query_named("prompts", run=run)),
    }


def _of_learning(run: str, floor: float, at: str) -> dict[str, str]:
    drawn = {}
    looks = [row for row in query_named("learning", run=run) if row["floor"] == floor and _is_whole(row["learner"])]
    if looks:
        drawn[f"{at}: reward of choosing greedily, while it is learned."] = reward_by_step(looks)
    if any(row["epsilon"] is not None for row in looks):
        drawn["The share of actions that are drawn at random while it is learned."] = epsilon_by_step(looks)
    if rewards := [row for row in query_named("rewards", run=run) if row["floor"] == floor]:
        drawn[f"{at}: reward above that of dense, added up over the test prompts."] = cumulative_reward(rewards)
    return drawn


def _of_actions(run: str, at: str, learned: Sequence[Row]) -> dict[str, str]:
    actions = query_named("actions", run=run)
    every = [row for row in actions if row["source"] is None]
    by_source = [row for row in actions if row["source"] is not None]
    caption = f"{at}: quality against speed. A point is an action, a diamond a policy; nothing beats what is joined."
    drawn = {caption: quality_by_speed(every, learned)}
    if len({row["source"] for row in by_source}) > 1:
        drawn["Speed of each action by source."] = speed_by_source(by_source)
    return drawn | {"Memory of each action.": memory(every)}


def _with_times(row: Row, tokens: int) -> Row:
    """With what follows from what is stored: whole answers and all decoding in milliseconds, losses as perplexities."""
    return row | {
        prefix + name: value
        for prefix in ("", "dense_")
        for name, value in (
            ("answer_ms", 1000 * tokens / row[f"{prefix}tokens_per_s"]),
            ("decoding_ms", tokens * row[f"{prefix}decode_ms"]),
            ("ppl_after", math.exp(min(row[f"{prefix}nll"], 700.0))),
        )
    }


def _parts(rows: Sequence[Row], learned: Sequence[Row]) -> list[Row]:
    """The mean time of each phase of an answer, dense and as it was chosen."""
    of_policy = [row["decision_ms"] for row in learned if row["policy"] == rows[0]["policy"]]
    timed = [decision_ms for decision_ms in of_policy if decision_ms is not None]
    dense = {"name": "dense", "decision_ms": 0.0, "switch_ms": 0.0}
    dense |= {name: fmean(row[f"dense_{name}"] for row in rows) for name in ("prefill_ms", "decoding_ms")}
    chosen = {"name": f"as {rows[0]['policy']} chose", "decision_ms": fmean(timed) if timed else 0.0}
    return [dense, chosen | {name: fmean(row[name] for row in rows) for name in PHASES}]

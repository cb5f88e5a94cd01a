"""The lines of bench.controller as Markdown: what actions do, what policies choose among them, and what they are live.

Axes: S seeds, P prompts, A actions.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from bench.controller_measured import LEARN, LIVE, MEASURE, SWEEP, Line, of_part, table_from
from bench.controller_subjects import AGAIN
from bench.stored import table
from tasks.train_controller.judge.live import LiveAnswer, live_decisions
from tasks.train_controller.judge.regret import (
    BEST_FIXED,
    DENSE,
    ORACLE,
    RANDOM,
    baselines,
    decisions,
    interval,
    summaries,
)
from tasks.train_controller.learn.learners import LEARNERS
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table
from tasks.train_controller.rows import ControllerRow, DecisionRow

RESAMPLES, RANDOM_SEEDS = 2000, 5
BY_RISES = "oracle of rises"
POLICY_HEAD = ("floor", "policy", "speed", "over best fixed", "broken", "mean rise", "regret", "of the oracle's gain")
LIVE_HEAD = ("floor", "policy", "speed", "over best fixed", "broken", "decision, ms", "90 % within")


def markdown(lines_of: Mapping[str, Sequence[Line]]) -> str:
    text = [
        "# A policy per prompt beside one profile for all prompts",
        "",
        "Speed is that of the whole answer (prefill, switch, all decoding) against `none` in the same rounds; brackets",
        "are 95 % intervals over prompts, and seeds where there are several. The rise is that of the perplexity of a",
        "reference that really follows the prompt; a floor is *broken* where it is larger. The best fixed action is",
        "the fastest that breaks the floor on no larger share of the training prompts than the target, which is the",
        "learners' too. Policies are judged on prompts that nothing learned from. *Regret* is reward below the oracle,",
        "which knows what each action does to each prompt and keeps the floor; chance in the timings helps it too.",
        f"*{BY_RISES}* does without: it knows the rises, and takes what meets the floor and is fastest on average.",
        "Bold: the interval leaves 0 out.",
    ]
    for model, lines in lines_of.items():
        text += ["", *_model(model, lines)]
    return "\n".join(text) + "\n"


def _model(model: str, lines: Sequence[Line]) -> list[str]:
    start = [line for line in lines if "command" in line][-1]
    measured = of_part(lines, start["setup"], MEASURE)
    head = [
        f"## {model}: dense {start['dense']['ppl']:.3f}",
        "",
        f"{start['date']}, `{start['command']}`, threads: {start['threads']}, load at the start {start['load']:.1f}.",
        f"Machine: {start['machine']}. Prompts: {start['prompts']}; answers of {start['tokens']} tokens, references",
        f"of {start['reference']} at most, {start['repetitions']} rounds behind one that warms up.",
    ]
    splits = [line["split"] for line in measured]
    if min(splits.count("train"), splits.count("test")) == 0:
        return [*head, "", f"Measured so far: {len(measured)} prompts."]
    train, test = (table_from(measured, start["actions"], split) for split in ("train", "test"))
    of_table = {"prompts": len(measured), "target": start["target"]}
    learned, live, swept = (
        [line for line in of_part(lines, start["setup"], part) if of_table.items() <= line["cell"].items()]
        for part in (LEARN, LIVE, SWEEP)
    )
    return [
        *head,
        "",
        f"{len(train)} prompts to learn from, {len(test)} to test on; target {100 * start['target']:g} %.",
        "",
        *_actions(start, measured),
        "",
        *_policies(start, train, test, learned),
        *_live(test, live),
        *_sweep(start, train, test, learned, swept),
    ]


def _actions(start: Line, measured: Sequence[Line]) -> list[str]:
    def row(number: int, action: str) -> list[str]:
        ratio_1P, rise_P, kept_P = (
            np.array([[line[field][number] for line in measured]]) for field in ("ratio", "rise", "cache_bytes")
        )
        whole_P = np.array([[line["cache_bytes"][0] for line in measured]])
        met = [f"{(rise_P <= floor).mean():.0%}" for floor in start["floors"]]
        switch = median(line["switch_ms"][number] for line in measured)
        speed = _speed(ratio_1P.mean().item(), *interval(ratio_1P, RESAMPLES, 0))
        shares = [f"{rise_P.mean():.1%}", f"{np.median(rise_P):.1%}", *met]
        return [action, speed, *shares, f"{switch:.2f}", f"{(kept_P / whole_P).mean():.0%}"]

    meets = [f"meets {floor:.0%}" for floor in start["floors"]]
    head = ("action", "speed", "rise, mean", "median", *meets, "switch, ms", "cache")
    prefill = median(line["prefill_ms"] for line in measured)
    dense = median(line["decode_ms"][0] for line in measured)
    return [
        f"`none`: {prefill:.1f} ms to read a prompt, {dense:.2f} ms a token. `{AGAIN}` is the same, timed once more.",
        "",
        *table(head, (row(number, action) for number, action in enumerate(start["actions"]))),
    ]


def _policies(
    start: Line,
    train: Table,
    test: Table,
    learned: Sequence[Line],
    beside: Sequence[str] = (ORACLE, BEST_FIXED, RANDOM, DENSE, BY_RISES),
) -> list[str]:
    reward, target = Reward(), start["target"]
    made: list[DecisionRow] = []
    for floor, seed in product(start["floors"], range(RANDOM_SEEDS)):
        for name, choice_P in baselines(train, test, floor, reward, seed, target).items():
            if name == RANDOM or not seed:  # the others draw nothing
                made += decisions(name, floor, seed, choice_P, test, reward)
    for floor in start["floors"]:
        made += decisions(BY_RISES, floor, 0, by_rises(train, test, floor), test, reward)
    for line in learned:
        if "choices" in line and line["cell"]["floor"] in start["floors"]:
            cell, choice_P = line["cell"], torch.tensor(line["choices"])
            made += decisions(cell["of"], cell["floor"], cell["seed"], choice_P, test, reward)
    fixed = {row.floor: row.action for row in made if row.policy == BEST_FIXED}
    shown = {*beside, *(line["cell"]["of"] for line in learned)}
    every = [row for row in summaries(made, resamples=RESAMPLES) if row.policy in shown]
    rows = sorted(every, key=lambda row: start["floors"].index(row.floor))
    refused = dict.fromkeys(f"Refused: {line['refused']}." for line in learned if "refused" in line)
    return [*table(POLICY_HEAD, (_policy(row, fixed[row.floor]) for row in rows)), *refused]


def _sweep(start: Line, train: Table, test: Table, learned: Sequence[Line], swept: Sequence[Line]) -> list[str]:
    """The learners as they are and with other rewards, beside the best fixed action."""
    if not swept:
        return []
    usual = [line for line in learned if line["cell"]["of"] in LEARNERS]
    return [
        "",
        "Other weights of the reward, ratio − quality · max(0, rise − tolerance · floor). Where nothing is said,",
        "quality is 3 and tolerance 1; the regret is always that of these.",
        "",
        *_policies(start, train, test, [*usual, *swept], beside=(BEST_FIXED,)),
    ]


def by_rises(train: Table, test: Table, floor: float) -> Tensor:
    """Of each test prompt the action (P,) that meets the floor there and is the fastest on the training prompts."""
    mean_PA = train.ratio_PA.mean(0).expand_as(test.rise_PA)
    return mean_PA.masked_fill(test.rise_PA > floor, -torch.inf).argmax(1)


def _policy(row: ControllerRow, fixed: str) -> list[str]:
    name = f"{row.policy}: {fixed}" if row.policy == BEST_FIXED else row.policy
    seeds = "" if row.seeds == 1 else f" ({row.seeds} seeds)"
    share = "" if row.oracle_share is None or row.policy == ORACLE else f"{row.oracle_share:.0%}"
    shares = [f"{row.violations:.1%}", f"{row.mean_rise:.1%}", f"{row.regret:.4f}", share]
    return [f"{row.floor:.0%}", name + seeds, _speed(row.ratio, row.ratio_low, row.ratio_high), _gain(row), *shares]


def _live(test: Table, live: Sequence[Line]) -> list[str]:
    answers = [LiveAnswer(**{"state": "{}"} | answer) for line in live for answer in line["answers"]]
    if not answers:
        return []
    again = np.array([[answer.ratio for answer in answers if answer.policy == AGAIN]])
    others = [answer for answer in answers if answer.policy != AGAIN]
    rows = summaries(live_decisions(others, test, Reward()), resamples=RESAMPLES)

    def row(each: ControllerRow) -> list[str]:
        times = [a.decision_ms for a in others if (a.policy, a.floor) == (each.policy, each.floor)]
        took = ["", ""] if each.policy == BEST_FIXED else [f"{median(times):.2f}", f"{np.quantile(times, 0.9):.2f}"]
        speed = _speed(each.ratio, each.ratio_low, each.ratio_high)
        return [f"{each.floor:.0%}", each.policy, speed, _gain(each), f"{each.violations:.1%}", *took]

    return [
        "",
        f"Live, {len(live)} of the test prompts, with the time to decide; the policies of the first seed. `{AGAIN}`:",
        f"{_speed(fmean(again[0]), *interval(again, RESAMPLES, 0))}.",
        "",
        *table(LIVE_HEAD, map(row, rows)),
    ]


def _speed(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _gain(row: ControllerRow) -> str:
    said = f"{row.gain:+.3f} ({row.gain_low:+.3f} to {row.gain_high:+.3f})"
    return f"**{said}**" if row.gain_low > 0 or row.gain_high < 0 else said

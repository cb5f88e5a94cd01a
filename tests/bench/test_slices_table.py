"""The table of slices: means and spreads of stored lines, the lowest in bold, and how it stands beside the peer."""

import math
from statistics import mean, stdev

from bench.slices_cuts import BOTH, CHANNELS
from bench.slices_table import markdown
from bench.slices_torch_pruning import HIDDEN_KEPT, MAGNITUDE, WHOLE

START = {
    "command": "python -m bench.slices",
    "date": "2026-11-22T10:00:00+00:00",
    "machine": "{}",
    "versions": "{}",
    "threads": 1,
    "calibration": "64 windows of 256 tokens",
    "round_to": 2,
    "dense": {"ppl": math.exp(2.0), "nll": 2.0, "tokens": 94605, "windows": 371},
}


def line(ppl, cut=BOTH, importance="activation", budget=0.3, repair=False, seed=0, tokens=0, removed=0.3):
    cell = {"cut": cut, "importance": importance, "budget": budget, "repair": repair}
    return {"cell": cell | {"recover_tokens": tokens, "seed": seed}, "ppl": ppl, "removed": removed}


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]


def test_mean_spread_number_of_seeds_and_the_lowest():
    ppls = [29.0, 30.5, 31.0]
    lines = [START, *(line(ppl, seed=seed) for seed, ppl in enumerate(ppls))]
    lines += [line(13.0, repair=True), line(150.0, importance="flap", budget=0.1, removed=0.104)]
    lines += [line(9.0, repair=True, tokens=400_000)]
    text = markdown({"stories3M": lines})
    rows = rows_of(text)
    assert ["activation", "cut", "", f"{mean(ppls):.2f} ± {stdev(ppls):.2f}"] in rows
    assert ["activation", "repaired", "", "13.00 (1)"] in rows
    assert ["activation", "repaired, 400,000 tokens recovered", "", "**9.00 (1)**"] in rows
    assert ["flap", "cut", "**150.0 (1)**", ""] in rows
    assert "Removed from the blocks: 10.4%, 30.0%." in text


def test_the_lowest_of_each_side_is_compared_in_nats_above_the_dense_model():
    lines = [START, line(math.exp(4.0), repair=True), line(math.exp(3.0), cut=CHANNELS, repair=True), line(1.0)]
    lines += [line(math.exp(2.5), cut=CHANNELS, repair=True, tokens=400_000)]  # training is no part of it
    lines += [line(math.exp(nll), cut=cut, importance=MAGNITUDE) for cut, nll in ((WHOLE, 8.0), (HIDDEN_KEPT, 5.0))]
    expected = [
        "30%",
        f"148.41, {MAGNITUDE}, hidden width kept",
        "54.60, activation: 1.50x",
        "20.09, activation: 3.00x",
    ]
    assert expected in rows_of(markdown({"m": lines}))


def test_without_the_peer_its_part_is_missing_and_why_is_said_once():
    reason = [{"cell": line(0.0, cut=WHOLE, seed=seed)["cell"], "not_run": "no index"} for seed in (0, 1)]
    text = markdown({"m": [START, line(9.0, repair=True), *reason]})
    assert text.count("Not run: torch-pruning: no index.") == 1
    assert "times nearer" not in text

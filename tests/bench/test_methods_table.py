"""The table of methods: means and spreads of stored lines, what is missing said, the lowest in bold."""

from statistics import mean, stdev

from bench.methods_table import markdown

START = {
    "command": "python -m bench.methods",
    "date": "2026-11-22T10:00:00+00:00",
    "machine": "{}",
    "versions": "{}",
    "threads": 1,
    "calibration": "64 windows of 256 tokens",
    "steps": {"none": "", "refit": ""},
    "dense": {"ppl": 5.9029, "nll": 1.7754, "tokens": 94605, "windows": 371},
}


def line(step, method, pattern, seed, ppl, permute=False):
    cell = {"step": step, "method": method, "pattern": pattern, "permute": permute, "seed": seed}
    return {"cell": cell, "ppl": ppl, "nll": 0.0, "sparsity": 0.5, "seconds": 2.0}


def rows_of(text: str) -> dict[tuple[str, str], list[str]]:
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]
    return {(row[0], row[1]): row[2:] for row in cells}


def test_mean_spread_number_of_seeds_and_the_lowest():
    ppls = [29.0, 30.5, 31.0]
    lines = [START, *(line("none", "wanda", "50%", seed, ppl) for seed, ppl in enumerate(ppls))]
    lines += [line("refit", "wanda", "50%", 0, 17.0), line("none", "sparsegpt", "50%", 0, 150.0)]
    rows = rows_of(markdown({"stories3M": lines}))
    assert rows["50%", "wanda"] == [f"{mean(ppls):.2f} ± {stdev(ppls):.2f}", "**17.00 (1)**"]
    assert rows["50%", "sparsegpt"] == ["150.0 (1)", ""]


def test_permuted_inputs_have_rows_of_their_own_after_the_others():
    lines = [START]
    for permute in (False, True):
        lines += [line("none", method, "2:4", 0, 100.0 - 10 * permute, permute) for method in ("wanda", "ria")]
    assert [key for key in rows_of(markdown({"m": lines})) if key[0].startswith("2:4")] == [
        ("2:4", "wanda"),
        ("2:4", "ria"),
        ("2:4 p", "wanda"),
        ("2:4 p", "ria"),
    ]


def test_what_was_refused_is_said_once():
    cell = {"step": "none", "method": "wanda", "pattern": "4:8", "permute": False, "seed": 0}
    refused = [{"cell": cell | {"seed": seed}, "refused": "4:8 does not divide"} for seed in (0, 1)]
    text = markdown({"m": [START, line("none", "wanda", "50%", 0, 20.0), *refused]})
    assert text.count("Not run: 4:8 does not divide.") == 1
    assert "dense 5.903" in text

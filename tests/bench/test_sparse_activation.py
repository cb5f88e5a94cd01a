"""The benchmark of sparse inputs beside sparse weights: which runs there are, what each measures, and the table."""

import math
from statistics import mean, stdev

import pytest
import torch

from bench.activation import LEARNED, PATTERNS, Cell, cells, measure, parse
from bench.activation_table import INPUTS, WEIGHTS, markdown
from bench.texts import WINDOW, Text
from tests.cases import FFN, VOCABULARY, WIDTH, batches, llama

ATTENTION, OF_FFN = 2 * WIDTH * WIDTH + 2 * WIDTH * WIDTH // 2, 3 * WIDTH * FFN  # weights of a block
START = {
    "command": "python -m bench.activation",
    "date": "2026-11-22T10:00:00+00:00",
    "machine": "{}",
    "threads": 1,
    "calibration": "64 windows of 256 tokens",
    "learn": "Learn()",
    "dense": {"ppl": 5.9029, "nll": 1.7754, "tokens": 94605, "windows": 371},
}


class Short(Text):
    """Calibrates on a few short windows."""

    def batches(self, seed):
        return tuple(batches(*[(2, 24)] * 4, seed=seed))


@pytest.fixture
def text():
    ids = torch.arange(2 * WINDOW + 5) % VOCABULARY
    return Short(calibration_T=ids, evaluation_T=ids)


def cell(**changes):
    usual = {"sparse": INPUTS, "method": "none", "pattern": "50%", "modules": "all", "seed": 0}
    return Cell(**usual | changes)


def test_every_run_once_and_what_sees_no_windows_for_one_seed():
    every = list(cells(parse(["--models", "builtin"])))
    assert len(set(every)) == len(every) == len(PATTERNS) * 2 * (3 + 1 + 3 * (1 + len(LEARNED)))
    seeds = {
        method: {each.seed for each in every if each.method == method} for method in ("none", "var", "wanda", "spts")
    }
    assert seeds == {"none": {0}, "var": {0}, "wanda": {0, 1, 2}, "spts": {0, 1, 2}}
    assert [each.seed for each in every] == sorted(each.seed for each in every)


@pytest.mark.parametrize(("modules", "share"), [("all", 0.5), ("ffn", 0.5 * OF_FFN / (ATTENTION + OF_FFN))])
def test_both_sides_drop_as_much(text, modules, share):
    model = llama(max_position_embeddings=WINDOW)
    for changes in ({}, {"pattern": "2:4"}, {"method": "lpts"}, {"sparse": WEIGHTS, "method": "wanda"}):
        found = measure(model, text, cell(modules=modules, **changes))
        assert found["sparsity"] == pytest.approx(share)
        assert found["ppl"] == pytest.approx(math.exp(found["nll"]))
        assert ("energy_kept" in found) == (changes.get("sparse") != WEIGHTS)


def test_of_what_learns_the_line_says_whether_the_loss_on_other_text_fell(text):
    line = measure(llama(max_position_embeddings=WINDOW), text, cell(method="ls"))
    found = line["learned"]
    assert found["fell"] == (found["nll_to"] < found["nll_from"])
    assert found["error_to"] < found["error_from"]  # of blocks, on windows of the calibration text that were held out
    plain = measure(llama(max_position_embeddings=WINDOW), text, cell())
    assert found["nll_to"] == line["nll"]
    assert found["nll_from"] == pytest.approx(plain["nll"])  # a scale of 1 changes nothing


def test_a_pattern_that_does_not_divide_is_refused(text):
    assert "does not divide" in measure(llama(), text, cell(pattern="3:5"))["refused"]


def line(ppl, fell=None, **changes):
    made = {"cell": vars(cell(**changes)), "ppl": ppl, "nll": math.log(ppl), "sparsity": 0.5, "seconds": 1.0}
    made |= {"energy_kept": 0.9} if made["cell"]["sparse"] == INPUTS else {}
    learned = {"nll_from": 3.0, "nll_to": 2.9 if fell else 3.1, "fell": fell, "error_from": 0.2, "error_to": 0.1}
    return made if fell is None else made | {"learned": learned}


def rows_of(text):
    rows = [[each.strip() for each in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_the_table_has_a_column_for_each_method_inputs_first_and_bold_is_the_lowest_of_a_pattern():
    ppls = [20.0, 21.0, 25.0]
    lines = [START, line(30.0), *(line(ppl, sparse=WEIGHTS, method="wanda", seed=i) for i, ppl in enumerate(ppls))]
    lines += [line(19.0, method="var"), line(17.0, pattern="8:16"), line(7.0, modules="ffn")]
    all_text, ffn = markdown({"m": lines}).split("### m, linears: ffn")
    rows = rows_of(all_text)
    assert rows["pattern"] == ["gone", "energy", "inputs, none", "inputs, var", "weights, wanda"]
    expected = f"{mean(ppls):.2f} ± {stdev(ppls):.2f}"
    assert rows["50%"] == ["50.0%", "0.900", "30.00", "**19.00**", expected]
    assert rows["8:16"] == ["50.0%", "0.900", "**17.00**", "", ""]
    assert rows["dense"] == ["0.0%", "1.000", *["5.90"] * 3]
    assert rows_of(ffn)["50%"] == ["50.0%", "0.900", "**7.00**"]


def test_what_is_read_besides_is_told_and_is_not_the_lowest_of_those_that_read_as_much():
    lines = [START, line(30.0), line(15.0, method="rsparse") | {"sparsity": 0.36}]
    rows = rows_of(markdown({"m": lines}))
    assert rows["50%"] == ["50.0%", "0.900", "**30.00**", "15.00 (1) at 36%"]


def test_whether_larger_groups_are_better_is_said_of_each_column_that_has_all():
    ppls = {"16:32": 10.0, "8:16": 12.0, "4:8": 15.0, "2:4": 30.0}
    lines = [START, *(line(ppl, pattern=pattern) for pattern, ppl in ppls.items())]
    lines += [line(50 - ppl, pattern=pattern, method="var") for pattern, ppl in ppls.items()]
    lines += [line(9.0, pattern="2:4", method="dpts")]
    text = markdown({"m": lines})
    said = "16:32 better than 8:16 better than 4:8 better than 2:4"
    assert f"{said} holds of inputs, none." in text
    assert f"{said} does not hold of inputs, var." in text
    assert text.count(said) == 2


def test_a_loss_that_did_not_fall_by_training_is_said():
    lines = [START, line(20.0), line(19.0, fell=True, method="spts"), line(22.0, fell=False, method="spts", seed=1)]
    lines += [line(40.0, fell=True, method="lpts", pattern="2:4")]
    text = markdown({"m": lines})
    assert "- spts: in 1 of 2 runs, by +0.000 nats on average; not in all at 50%" in text
    assert "- lpts: in 1 of 1 runs, by -0.100 nats on average\n" in text

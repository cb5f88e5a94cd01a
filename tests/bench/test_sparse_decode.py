"""The benchmark of decoding with sparse inputs: a line of a tiny model, and the table of the last start."""

import pytest
import torch

from bench.sparse_decode import TO_REACH, make, markdown, measure, parse
from tasks.prune.activation.products import product_for

START = {"command": "c", "machine": "{}", "date": "d", "threads": 2, "width": 2048, "ffn": 8192, "blocks": 8}
LINE = {
    "share": 0.5,
    "ratio": 1.5,
    "low": 1.4,
    "high": 1.6,
    "tokens_per_s": 12.34,
    "bound": 2.0,
    "products_that_win": "3 of 4",
    "product": "compiled",
    "largest_difference": 5e-6,
}


def rows_of(text):
    rows = [[each.strip() for each in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_a_line_has_the_speed_the_bound_by_bytes_and_the_difference_to_the_masked_model():
    choice = parse(["--width", "64", "--ffn", "128", "--blocks", "1", "--repetitions", "6", "--threads", "1"])
    line = measure(make(choice), make(choice), 0.5, choice)
    norms, linears, head = 2 * 64, 4 * 64 * 64 + 3 * 64 * 128, 64 * 4096
    assert line["bound"] == pytest.approx((linears + head) / (linears / 2 + head), rel=norms / head)
    assert line["low"] <= line["ratio"] <= line["high"]
    assert line["largest_difference"] < 1e-4
    assert line["products_that_win"].endswith(" of 4")
    assert line["product"] == product_for(torch.device("cpu"), torch.float32)
    assert line.keys() == LINE.keys()


def test_the_same_model_is_made_each_time():
    choice = parse(["--width", "64", "--ffn", "128", "--blocks", "1"])
    one, other = make(choice).state_dict(), make(choice).state_dict()
    assert all(one[name].equal(other[name]) for name in one)


def test_the_table_shows_the_last_start_and_what_was_to_be_reached():
    old = LINE | {"share": 0.9}
    missed = LINE | {"share": 0.75, "bound": 4.0}
    text = markdown([START, old, START | {"date": "later"}, LINE, missed, LINE | {"share": 0.25}])
    rows = rows_of(text)
    assert "later, `c`" in text
    assert "90%" not in rows
    assert (TO_REACH[0.5], TO_REACH[0.75]) == (1.35, 1.9)
    assert rows["50%"] == ["12.3", "1.50 (1.40 to 1.60)", "1.35: met", "2.00", "0.75", "3 of 4 compiled", "5.0e-06"]
    assert rows["75%"] == ["12.3", "1.50 (1.40 to 1.60)", "1.9: missed", "4.00", "0.38", "3 of 4 compiled", "5.0e-06"]
    assert rows["25%"][2] == ""

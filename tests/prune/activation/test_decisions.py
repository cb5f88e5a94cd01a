"""Decisions of a machine are kept and read again, beside those of other machines."""

import dataclasses
import json

import pytest

from tasks.prune.activation.decisions import decisions_of, product_rows, with_decisions
from tasks.prune.activation.fast import TOKENS, Decision, Shape

SHAPE = Shape(inputs=64, outputs=128, dropped=0.5, dtype="float32", threads=2)
DECISION = Decision(shape=SHAPE, dense_ms=(2.0, 2.5, 3.0, 4.0), sparse_ms=(1.0, 2.0, 3.5, 3.5))
OTHER = dataclasses.replace(DECISION, shape=dataclasses.replace(SHAPE, dropped=0.75))


def test_what_was_kept_is_read_again():
    text = with_decisions("here", None, {SHAPE: DECISION})
    assert decisions_of("here", text) == {SHAPE: DECISION}
    assert decisions_of("there", text) == decisions_of("here", None) == {}


def test_shapes_and_machines_stand_beside_each_other():
    text = with_decisions("here", None, {SHAPE: DECISION})
    text = with_decisions("there", text, {SHAPE: DECISION})
    text = with_decisions("here", text, {OTHER.shape: OTHER})
    assert decisions_of("here", text) == {SHAPE: DECISION, OTHER.shape: OTHER}
    assert decisions_of("there", text) == {SHAPE: DECISION}


def test_a_row_says_which_product_runs_and_none_after_the_first_that_loses():
    rows = product_rows([DECISION])
    assert [(row.tokens, row.sparse) for row in rows] == [(1, True), (2, True), (4, False), (8, False)]
    assert [row.sparse_ms for row in rows] == [*DECISION.sparse_ms]
    assert {(row.in_features, row.out_features, row.threads) for row in rows} == {(64, 128, 2)}


def test_decisions_for_other_numbers_of_tokens_are_measured_anew():
    said = json.loads(with_decisions("here", None, {SHAPE: DECISION}))
    said["here"][0]["dense_ms"] = [1.0] * (len(TOKENS) - 1)
    assert decisions_of("here", json.dumps(said)) == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"here": 3}', '{"here": [{"shape": {"width": 3}}]}'])
def test_a_file_that_is_none_is_named(text):
    with pytest.raises(ValueError, match=r"^products: the file of decisions cannot be read .*remove it$"):
        decisions_of("here", text)

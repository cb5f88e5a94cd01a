import math

import pytest
import torch

from tasks.calibrate.importance.correlation import importance_rows, rank_correlation, sample_units, unit_rows
from tasks.calibrate.importance.importance import Unit
from tasks.calibrate.importance.leave_one_out import LeaveOneOut
from tasks.handles import ImportanceRow, UnitRow
from tasks.model.units import units_of
from tests.cases import BLOCKS, FFN, batches, gpt_neox, llama

SCORES = [{"channels": torch.tensor([1.0, 2.0, 3.0])}, {"channels": torch.tensor([5.0, 4.0]), "blocks": torch.ones(1)}]


def measured(*losses):
    units = [Unit(block, "channels", unit) for block, unit in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 0))]
    return dict(zip(units, losses, strict=False))


def test_the_sample_is_seeded_without_repeats_and_from_all_blocks():
    units = units_of(llama())
    sample = sample_units(units, "channels", 60, seed=3)
    assert sample == sample_units(units, "channels", 60, seed=3) != sample_units(units, "channels", 60, seed=4)
    assert len(set(sample)) == 60
    assert {unit.block for unit in sample} == set(range(BLOCKS))
    assert all(unit.kind == "channels" and 0 <= unit.unit < FFN for unit in sample)


def test_a_sample_larger_than_all_is_all():
    units = units_of(llama())
    assert sample_units(units, "blocks", 9) == [Unit(block, "blocks", 0) for block in range(BLOCKS)]
    assert len(sample_units(units, "channels", 1000)) == BLOCKS * FFN


def test_rank_correlation_by_hand():
    assert rank_correlation(SCORES, measured(0.1, 0.2, 0.3, 9.0, 10.0)) == pytest.approx(1)
    assert rank_correlation(SCORES, measured(5.0, 4.0, 3.0, 2.0, 1.0)) == pytest.approx(-1)
    # ranks 1 2 3 4 5 against 2 1 3 5 4: 1 - 6 * 4 / (5 * 24)
    assert rank_correlation(SCORES, measured(2.0, 1.0, 3.0, 5.0, 4.0)) == pytest.approx(0.8)
    # ranks 1 2 3 against 1.5 1.5 3: covariance 1.5, variances 2 and 1.5
    assert rank_correlation(SCORES, measured(1.0, 1.0, 2.0)) == pytest.approx(1.5 / math.sqrt(2 * 1.5))


def test_there_is_no_order_where_all_are_equal():
    assert rank_correlation(SCORES, measured(1.0, 1.0, 1.0)) is None
    assert rank_correlation([{"channels": torch.ones(3)}], measured(1.0, 2.0, 3.0)) is None


def test_the_measured_loss_orders_units_as_itself():
    model = llama()
    scores = LeaveOneOut(kinds=("query_heads",)).score(model, batches())
    losses = {
        unit: scores[unit.block][unit.kind][unit.unit].item()
        for unit in sample_units(units_of(model), "query_heads", 8)
    }
    assert rank_correlation(scores, losses) == pytest.approx(1)


def test_rows():
    found = unit_rows("flap", SCORES, {Unit(1, "channels", 0): 7.0})
    assert len(found) == 6
    assert found[0] == UnitRow(importance="flap", block=0, kind="channels", unit=0, score=1.0, loss_without=None)
    assert found[3] == UnitRow(importance="flap", block=1, kind="channels", unit=0, score=5.0, loss_without=7.0)
    assert (found[5].kind, found[5].unit) == ("blocks", 0)
    assert importance_rows("flap", SCORES, measured(2.0, 1.0, 3.0, 5.0, 4.0)) == [
        ImportanceRow(importance="flap", kind="channels", units=5, sampled=5, correlation=pytest.approx(0.8))
    ]
    assert importance_rows("flap", SCORES, {}) == []


def test_bad_input_is_told():
    with pytest.raises(ValueError, match=r"^count: 2 given, valid is 3 or more$"):
        sample_units(units_of(llama()), "channels", 2)
    with pytest.raises(
        ValueError, match=r"^kind: 'head_groups' given, this model has blocks, attention, ffn, channels$"
    ):
        sample_units(units_of(gpt_neox()), "head_groups", 3)
    with pytest.raises(ValueError, match=r"^measured: 2 units given, valid is 3 or more$"):
        rank_correlation(SCORES, measured(1.0, 2.0))
    with pytest.raises(ValueError, match=r"^measured: units of blocks, channels given, valid is one kind$"):
        rank_correlation(SCORES, measured(1.0, 2.0, 3.0) | {Unit(1, "blocks", 0): 1.0})
    for stranger in (Unit(0, "channels", 3), Unit(2, "channels", 0), Unit(0, "channels", -1)):
        with pytest.raises(
            ValueError, match=rf"unit {stranger.unit} of the channels of block {stranger.block} given, it has"
        ):
            rank_correlation(SCORES, measured(1.0, 2.0) | {stranger: 1.0})

"""Forecasts of speed: the formula with times that are given, and what is really multiplied where times are measured."""

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tasks.evaluate import forecast, products
from tasks.evaluate.forecast import Timed, forecast_from, forecast_phases, time_turn
from tasks.evaluate.forecast_row import Forecast, ForecastRow, forecast_rows
from tasks.evaluate.products import Products, Work, heads_in, works_of
from tasks.model.cost import sizes_of
from tasks.prune.structure.depth import slice_blocks
from tests.cases import FAMILIES, VOCABULARY, llama
from tests.record.plausible import speed

QUICK = {"vocab_size": VOCABULARY, "prompt_tokens": 8, "decode_tokens": 4, "turns": 3}
OUTSIDE, REST = 0.25, 0.125  # seconds of the dense model outside its blocks, and in each linear beyond its product


def to_be(dense, *cuts):
    """What the cut models multiply, whose subjects are numbers."""
    return {str(number): works_of(cut, heads_in(dense)) for number, cut in enumerate(cuts)}


def macs(works):
    return sum(rows * columns for work in works for rows, columns in work.linears)


def linears(works):
    return sum(len(work.linears) for work in works)


@pytest.fixture
def a_second_a_thousand(monkeypatch):
    """Instead of a clock: a product takes a second for 1000 MACs, each linear and the rest what is said above."""

    def timed(dense, before, after, *_):
        now_there = macs(before.works) / 1000
        blocks = now_there + REST * linears(before.works)
        return {
            (subject, phase): Timed(
                whole=OUTSIDE + blocks, blocks=blocks, before=now_there, after=macs(products.works) / 1000
            )
            for subject, products in after.items()
            for phase in ("prefill", "decode")
        }

    monkeypatch.setattr(forecast, "time_turn", timed)


def seconds_of(model):
    works = works_of(model, heads_in(model))
    return OUTSIDE + macs(works) / 1000 + REST * linears(works)


@pytest.mark.usefixtures("a_second_a_thousand")
def test_a_model_that_is_not_cut_has_the_speed_it_has():
    for found in forecast_phases(llama(), to_be(llama(), llama()), **QUICK):
        assert found.ratio == 1
        assert found.latency_ms == 1000 * seconds_of(llama())


@pytest.mark.usefixtures("a_second_a_thousand")
@pytest.mark.parametrize("changes", [{"num_hidden_layers": 1}, {"intermediate_size": 24}, {"num_hidden_layers": 2}])
def test_a_cut_model_costs_its_products_and_the_rest_of_the_linears_it_has(changes):
    dense, cut = llama(), llama(**changes)
    for found in forecast_phases(dense, to_be(dense, cut), **QUICK):
        assert found.latency_ms == pytest.approx(1000 * seconds_of(cut))
        assert found.ratio == pytest.approx(seconds_of(dense) / seconds_of(cut))


@pytest.mark.usefixtures("a_second_a_thousand")
def test_the_narrower_the_faster():
    cuts = [llama(intermediate_size=width) for width in (64, 48, 32, 16, 8)]
    found = [each for each in forecast_phases(llama(), to_be(llama(), *cuts), **QUICK) if each.phase == "decode"]
    assert [each.subject for each in found] == ["0", "1", "2", "3", "4"]
    ratios = [each.ratio for each in found]
    assert all(less < more for less, more in pairwise(ratios))
    assert ratios[0] == 1


def test_one_slow_turn_changes_nothing():
    steady = Timed(whole=4.0, blocks=3.0, before=2.0, after=1.0)
    slow = Timed(whole=400.0, blocks=3.0, before=2.0, after=1.0)
    found = forecast_from([steady, slow, steady], "ffn20", "decode", left=0.5)
    assert found == Forecast(
        subject="ffn20", phase="decode", latency_ms=2500.0, ratio=1.6
    )  # 4 / (1 outside + 1 + half of 1)


def test_what_vanished_costs_nothing():
    gone = Timed(whole=4.0, blocks=3.0, before=2.0, after=0.0)
    assert gone.forecast(left=0.0) == 1.0


def test_no_disturbance_makes_a_model_faster_than_its_products():
    disturbed = Timed(whole=4.0, blocks=3.0, before=30.0, after=2.0)
    assert disturbed.forecast(left=1.0) == 3.0  # 1 outside and 2 of products


@pytest.mark.parametrize("family", FAMILIES)
def test_the_work_of_each_family_is_that_of_its_cost_model(family):
    model = FAMILIES[family]()
    heads = heads_in(model)
    works = works_of(model, heads)
    assert len(works) == model.config.num_hidden_layers
    if heads is None:
        assert all(work.linears and not work.query_heads for work in works)
        return
    frame, widths = sizes_of(model)
    for work, of_block in zip(works, widths, strict=True):
        attended = 2 * of_block.query_heads * frame.head_dim  # MACs for the one key there is
        assert macs([work]) + attended == frame.block_cost(of_block, tokens=1).decode_macs
        assert (work.query_heads, work.kv_heads) == (of_block.query_heads, of_block.kv_heads)
        assert work.head_dim == frame.head_dim


def test_a_block_without_its_attention_or_its_ffn_has_the_work_of_the_other():
    model = llama()
    heads = heads_in(model)
    slice_blocks(model, attention=[0], ffn=[1])
    frame, widths = sizes_of(model)
    for work, of_block in zip(works_of(model, heads), widths, strict=True):
        attended = 2 * of_block.query_heads * frame.head_dim
        assert macs([work]) + attended == frame.block_cost(of_block, tokens=1).decode_macs
        assert (work.query_heads, work.kv_heads) == (of_block.query_heads, of_block.kv_heads)


def test_work_is_read_of_shapes_alone():
    model = llama()
    heads = heads_in(model)
    assert works_of(llama().to("meta"), heads) == works_of(model, heads)


@pytest.mark.parametrize(("phase", "tokens"), [("prefill", 12), ("decode", 1)])
def test_a_pass_multiplies_all_that_there_is(monkeypatch, phase, tokens):
    works = [
        Work(linears=((32, 16), (16, 48)), query_heads=4, kv_heads=2, head_dim=8),
        Work(linears=((24, 16),)),  # its attention was removed
        Work(linears=()),
    ]
    seen = []

    def attention(query, key, value, **how):
        seen.append((tuple(query.shape), tuple(key.shape), tuple(value.shape), how["is_causal"]))

    monkeypatch.setattr(products, "scaled_dot_product_attention", attention)
    passed = Products(works, 12, like=torch.zeros(1))
    with FlopCounterMode(display=False) as counter:
        getattr(passed, phase)()
    assert counter.get_total_flops() == 2 * tokens * macs(works)
    context = 12 if phase == "prefill" else 13
    assert seen == [((1, 4, tokens, 8), (1, 2, context, 8), (1, 2, context, 8), phase == "prefill")]


def test_weights_are_of_each_block_its_own():
    passed = Products([Work(linears=((8, 8), (8, 8)))] * 3, 4, like=torch.zeros(1, dtype=torch.bfloat16))
    weights = [weight for of_block in passed.weights for weight in of_block]
    assert len({weight.data_ptr() for weight in weights}) == 6
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_weights_that_are_lent_serve_once_where_they_fit_and_the_others_are_drawn():
    lent = [torch.zeros(8, 8), torch.zeros(8, 8), torch.zeros(4, 8)]
    passed = Products([Work(linears=((8, 8), (8, 6)))] * 3, 4, like=torch.zeros(1), lent=lent)
    squares = [of_block[0] for of_block in passed.weights]
    assert [squares[0] is lent[0], squares[1] is lent[1]] == [True, True]
    assert squares[2].abs().min() > 0
    assert {tuple(of_block[1].shape) for of_block in passed.weights} == {(8, 6)}


def test_a_turn_sees_the_blocks_within_the_model_and_leaves_no_hook():
    model = llama()
    works = works_of(model, heads_in(model))
    before, after = (Products(works, 8, like=torch.zeros(1)) for _ in range(2))
    turn = time_turn(model, before, {"half": after}, torch.zeros(1, 8, dtype=torch.long), decode_tokens=4)
    assert turn.keys() == {("half", "prefill"), ("half", "decode")}
    assert all(0 < timed.blocks < timed.whole for timed in turn.values())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forecast_for_each_phase_of_every_family(family):
    dense = FAMILIES[family]()
    found = forecast_phases(dense, to_be(dense, FAMILIES[family]().to("meta")), **QUICK)
    assert [each.phase for each in found] == ["prefill", "decode"]
    assert all(each.latency_ms > 0 for each in found)


def test_a_forecast_beside_what_was_measured():
    forecasts = [
        Forecast(subject="pruned", phase="prefill", latency_ms=80.0, ratio=1.2),
        Forecast(subject="pruned", phase="decode", latency_ms=5.0, ratio=1.5),
    ]
    speeds = [
        speed("dense", "prefill", 1.0, 1.0, 1.0, "reference"),
        speed("pruned", "prefill", 1.25, 1.2, 1.3, "faster"),
        speed("dense", "decode", 1.0, 1.0, 1.0, "reference"),
        speed("pruned", "decode", 1.2, 1.1, 1.3, "faster"),
    ]
    prefill, decode = forecast_rows(forecasts, speeds)
    assert prefill == ForecastRow(
        subject="pruned",
        phase="prefill",
        forecast_latency_ms=80.0,
        forecast_ratio=1.2,
        measured_ratio=1.25,
        error=pytest.approx(-0.04),
    )
    assert (decode.measured_ratio, decode.error) == (1.2, pytest.approx(0.25))
    with pytest.raises(
        ValueError, match="speeds: decode of dense, decode of pruned given, valid is a row for prefill of pruned"
    ):
        forecast_rows(forecasts, speeds[2:])

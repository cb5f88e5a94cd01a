import random

import pytest
import torch

from tasks.evaluate import speed
from tasks.evaluate.speed import compare_paired, compare_speed, compare_subjects
from tests.cases import FAMILIES, llama
from tests.evaluate.sparse_weight import sparse_weight

QUICK = {"vocab_size": 97, "prompt_tokens": 8, "decode_tokens": 4, "repetitions": 6}


def drifting(repetitions, ratio, noise, seed):
    """Paired latencies on a machine that halves its speed now and then; the candidate is `ratio` times as fast."""
    chance = random.Random(seed)
    reference, candidate = [], []
    for _ in range(repetitions):
        machine = chance.choice([1.0, 1.0, 2.0])
        reference.append(machine * chance.lognormvariate(0, noise))
        candidate.append(machine * chance.lognormvariate(0, noise) / ratio)
    return reference, candidate


def test_the_interval_is_between_order_statistics():
    ratios = [1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09, 1.10, 1.11, 1.12, 1.13, 1.14, 1.15]
    found = compare_paired(ratios, [1.0] * 15)
    assert (found.low, found.ratio, found.high) == (1.04, 1.08, 1.12)
    six = compare_paired([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [1.0] * 6)
    assert (six.low, six.high) == (1.0, 1.5)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    covered = sum(
        found.low <= 1 <= found.high
        for seed in range(1000)
        for found in [compare_paired(*drifting(15, 1.0, 0.1, seed))]
    )
    assert 950 <= covered <= 980  # 96.5 % in theory


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "no gain"), (1.3, "faster"), (0.7, "slower")])
def test_the_verdict(ratio, verdict):
    found = compare_paired(*drifting(15, ratio, 0.02, seed=1))
    assert found.verdict == verdict
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(ratio, rel=0.05)


def test_one_slow_moment_changes_nothing():
    reference, candidate = drifting(15, 1.3, 0.02, seed=1)
    candidate[3] *= 100
    assert compare_paired(reference, candidate).verdict == "faster"


def test_a_row_for_each_model_and_phase():
    rows = compare_speed(llama(), llama(num_hidden_layers=1), **QUICK, batch=2)
    assert [(row.subject, row.phase) for row in rows] == [
        ("dense", "prefill"),
        ("dense", "decode"),
        ("pruned", "prefill"),
        ("pruned", "decode"),
    ]
    for row in rows:
        assert (row.batch, row.repetitions) == (2, 6)
        assert row.tokens == (16 if row.phase == "prefill" else 8)
        assert row.tokens_per_s == pytest.approx(row.tokens / row.latency_ms * 1000)
        assert row.ratio_low <= row.ratio <= row.ratio_high
        assert row.verdict in (("reference",) if row.subject == "dense" else ("faster", "slower", "no gain"))
        assert (row.device, row.sparse_linears) == ("cpu", 0)


def test_one_model_alone():
    assert [(row.phase, row.ratio) for row in compare_speed(llama(), **QUICK)] == [("prefill", 1.0), ("decode", 1.0)]


def test_the_order_turns_and_both_are_warm(monkeypatch):
    dense, pruned, order = llama(), llama(), []
    monkeypatch.setattr(
        speed, "time_phases", lambda model, *_: order.append("A" if model is dense else "B") or (1.0, 1.0)
    )
    rows = compare_speed(dense, pruned, **QUICK)
    assert "".join(order) == "AABB" + "ABBAABBAABBA"
    assert {row.verdict for row in rows} == {"reference", "no gain"}


def test_one_model_that_is_switched_is_timed_as_several(monkeypatch):
    model, order, put_in = llama(), [], []
    monkeypatch.setattr(speed, "time_phases", lambda *_: order.append(put_in[-1]) or (1.0, 2.0))
    rows = compare_subjects(["dense", "heads", "ffn"], lambda subject: put_in.append(subject) or model, **QUICK)
    once, back = ["dense", "heads", "ffn"], ["ffn", "heads", "dense"]
    assert order == ["dense"] * 2 + ["heads"] * 2 + ["ffn"] * 2 + (once + back) * 3
    assert [(row.subject, row.phase) for row in rows] == [
        (subject, phase) for subject in once for phase in ("prefill", "decode")
    ]
    assert {row.verdict for row in rows} == {"reference", "no gain"}


def test_the_rows_say_how_many_linears_of_which_model_ran_sparse(monkeypatch):
    monkeypatch.setattr(speed, "time_phases", lambda *_: (1.0, 1.0))  # the kernels are not on every machine
    pruned = llama()
    for block in pruned.model.layers:
        block.mlp.down_proj.weight = sparse_weight(32, 64)
    rows = compare_speed(llama(), pruned, **QUICK)
    assert {(row.subject, row.phase): row.sparse_linears for row in rows} == {
        ("dense", "prefill"): 0,
        ("dense", "decode"): 0,
        ("pruned", "prefill"): len(pruned.model.layers),
        ("pruned", "decode"): len(pruned.model.layers),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_decode_really_goes_on_from_the_cache(family):
    model = FAMILIES[family]()
    seen = []
    with_hook = model.register_forward_hook(
        lambda _, inputs, output: seen.append((inputs[0], output.past_key_values.get_seq_length(), output.logits)),
    )
    prompt_BT = torch.randint(0, 97, (2, 8), generator=torch.Generator().manual_seed(0))
    speed.time_phases(model, prompt_BT, decode_tokens=4)
    with_hook.remove()
    assert [tuple(ids.shape) for ids, _, _ in seen] == [(2, 8), (2, 1), (2, 1), (2, 1), (2, 1)]
    assert [length for _, length, _ in seen] == [8, 9, 10, 11, 12]
    whole_BT = torch.cat([ids for ids, _, _ in seen], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(seen[-1][2][:, -1], model(whole_BT).logits[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repetitions": 5}, "repetitions: 5 given, at least 6"),
        ({"decode_tokens": 0}, "each is at least 1"),
        ({"prompt_tokens": 61}, "61 \\+ 4 given, the dense model takes 64"),
        ({"vocab_size": 98}, "vocab_size: 98 given, the dense model has 97"),
    ],
)
def test_bad_input_is_told_in_one_line(changes, said):
    with pytest.raises(ValueError, match=said):
        compare_speed(llama(), **(QUICK | changes))

"""What a cut model allows, and how the measured speed stands to it."""

import pytest

from bench import slices_speed
from bench.slices_speed import cut_blocks, cut_units, markdown, measure, of_phases
from tests.cases import FFN, VOCABULARY, WIDTH, llama

HEADS, KV_HEADS, HEAD, BLOCKS = 4, 2, 8, 3


def expected(blocks: int, heads: int, kv_heads: int, channels: int, prompt: int, decode: int) -> dict[str, float]:
    """From the formulas: the head of the model multiplies for one token of a prefill, and is read for each decoded."""
    linears = WIDTH * HEAD * 2 * (heads + kv_heads) + 3 * WIDTH * channels
    attention = heads * HEAD * prompt * (prompt + 1)
    outside, norms = VOCABULARY * WIDTH, 2 * WIDTH
    weights = blocks * (linears + norms) + 2 * outside + WIDTH  # embedding and head are apart in the tiny model
    cache = blocks * 2 * kv_heads * HEAD * (prompt + decode // 2)
    return {
        "prefill": 2 * (blocks * (prompt * linears + attention) + outside),
        "decode": 4 * (weights + cache),
    }


def test_what_the_phases_need_follows_the_formulas_for_the_dense_model_and_for_every_cut():
    model = llama()
    assert of_phases(model, 10, 4) == expected(BLOCKS, HEADS, KV_HEADS, FFN, 10, 4)
    cut_units(model, "channels", 0.25, round_to=16)
    assert of_phases(model, 10, 4) == expected(BLOCKS, HEADS, KV_HEADS, 48, 10, 4)
    cut_units(model, "head_groups", 0.5, round_to=16)
    assert of_phases(model, 10, 4) == expected(BLOCKS, 2, 1, 48, 10, 4)
    cut_blocks(model, [1])
    assert of_phases(model, 10, 4) == expected(2, 2, 1, 48, 10, 4)


@pytest.mark.parametrize("cut", ["nothing", "FFN -30 %, odd"])
def test_a_line_holds_the_rows_and_the_table_what_was_reached_of_the_allowed_ratio(monkeypatch, cut):
    monkeypatch.setattr(slices_speed, "random_llama", llama)
    monkeypatch.setattr(slices_speed, "VOCABULARY", VOCABULARY)
    line = measure(cut, prompt=8, decode=2, repetitions=6)
    assert line["blocks"][0]["channels"] == (FFN if cut == "nothing" else 45)
    assert (line["allowed"]["prefill"] > 1) == (line["allowed"]["decode"] > 1) == (cut != "nothing")
    speeds = {(row["subject"], row["phase"]): row["ratio"] for row in line["rows"]}
    start = {"command": "c", "date": "d", "machine": "m", "threads": 1, "load": 1.0, "repetitions": 6}
    start["tokens"] = {"prefill": 8, "decode": 2}
    old = dict(line, cut="of an earlier start")
    text = markdown([start, old, start, {"cut": cut} | line])
    assert "of an earlier start" not in text
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith(f"| {cut}")]
    assert [row[2] for row in rows] == ["prefill", "decode"]
    for row in rows:
        assert float(row[-1]) == pytest.approx(speeds["pruned", row[2]] / line["allowed"][row[2]], abs=6e-4)

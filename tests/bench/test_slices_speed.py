"""What a cut model allows, and how the measured speed stands to it."""

import argparse

import pytest

from bench import slices_speed
from bench.slices_speed import cut_blocks, cut_units, main, markdown, measure, of_phases, parse
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
    cut_blocks(model, 1 / 3)
    assert of_phases(model, 10, 4) == expected(2, 2, 1, 48, 10, 4)
    both, one = of_phases(model, 10, 4, batch=3), of_phases(model, 10, 4)
    assert both["prefill"] == 3 * one["prefill"]
    assert both["decode"] - one["decode"] == 2 * 4 * 2 * 2 * 1 * HEAD * 12  # two more caches of 2 blocks, 12 tokens


def of_choice(*words: str) -> argparse.Namespace:
    return parse(["--prompt", "8", "--decode", "2", "--repetitions", "6", *words])


@pytest.mark.parametrize("cut", ["nothing", "FFN -30 %, odd"])
def test_a_line_holds_the_rows_and_the_table_what_was_reached_of_the_allowed_ratio(monkeypatch, cut):
    monkeypatch.setattr(slices_speed, "random_llama", llama)
    lines = [{"cut": cut} | line for line in measure(cut, of_choice("--batches", "1", "3"))]
    assert [line["batch"] for line in lines] == [1, 3]
    for line in lines:
        assert line["blocks"][0]["channels"] == (FFN if cut == "nothing" else 45)
        assert (line["allowed"]["prefill"] > 1) == (line["allowed"]["decode"] > 1) == (cut != "nothing")
    start = {"command": "c", "date": "d", "machine": "m", "threads": 1, "load": 1.0, "repetitions": 6}
    start["tokens"] = {"prefill": 8, "decode": 2}
    old = dict(lines[0], cut="of an earlier start")
    text = markdown([start, old, start, *lines])
    assert "of an earlier start" not in text
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith(f"| {cut}")]
    assert [row[2:4] for row in rows] == [[batch, phase] for batch in "13" for phase in ("prefill", "decode")]
    speeds = {(line["batch"], row["phase"]): row["ratio"] for line in lines for row in line["rows"]}
    allowed = {(line["batch"], phase): each for line in lines for phase, each in line["allowed"].items()}
    for row in rows:
        place = int(row[2]), row[3]
        assert float(row[-1]) == pytest.approx(speeds[place] / allowed[place], abs=6e-4)


def test_another_shape_has_its_own_files(tmp_path, monkeypatch):
    words = ["--shape", "small", "--blocks", "4", "--cuts", "depth -25 %", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["slices_speed", *words, "--prompt", "8", "--decode", "2", "--repetitions", "6"])
    main()
    assert {each.name for each in tmp_path.iterdir()} == {"slices-speed-small.jsonl", "slices-speed-small.md"}
    text = (tmp_path / "slices-speed-small.md").read_text()
    assert "Llama of the shape small, 4 blocks, bfloat16, random weights" in text
    assert "| depth -25 % | 3 with 4 heads, 384 channels | 1 | decode |" in text

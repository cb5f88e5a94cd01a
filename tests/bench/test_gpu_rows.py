"""The benchmark of kept rows on a GPU, tried out without one."""

import json

import pytest
import torch

from bench.gpu_pruning import SHAPES
from bench.gpu_rows import main, products_of
from bench.gpu_rows_table import CUBLAS, ROWS, markdown

TRIAL = ["--device", "cpu", "--width", "small", "--rounds", "2"]
FACTS = {"date": "d", "command": "c", "machine": "{}", "versions": "{}", "trial": False, "rounds": 2}


def test_tried_out_on_a_cpu_it_measures_everything_and_says_where(tmp_path, capsys):
    assert main([*TRIAL, "--results", str(tmp_path)]) == 0
    text = (tmp_path / "gpu-rows-trial.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "Tried out on a CPU" in text
    [file] = tmp_path.glob("*-gpu-rows-trial.json")
    rows = json.loads(file.read_text())["rows"]
    assert [(row["linears"], row["share"]) for row in rows] == [
        (linears, share) for linears in products_of(SHAPES["small"]) for share in (0.4, 0.5)
    ]
    for row in rows:
        assert row["dropped"] == pytest.approx(row["share"], abs=0.02)  # in bfloat16 some inputs equal the threshold
        assert row["difference"] < 0.01
        assert {len(times) for times in row["times_s"].values()} == {2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_in_one_line(capsys):
    assert main([]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("device: a CUDA device is needed")


def test_the_8b_shapes_are_those_of_a_block():
    shapes = products_of(SHAPES["8b"])
    assert shapes == {
        "q, k, v": (6144, 4096),
        "o": (4096, 4096),
        "gate, up": (28672, 4096),
        "down": (4096, 14336),
    }


def test_the_table_sums_a_block_and_says_what_was_to_be_reached():
    def row(outputs, dropped, slow, fast):
        times = {CUBLAS: slow, ROWS: fast}
        facts = {"linears": f"{outputs}", "shape": (outputs, 10), "share": 0.5, "difference": 0.001}
        return facts | {"dropped": dropped, "times_s": times}

    text = markdown(FACTS, [row(30, 0.5, [3e-6, 3e-6], [1e-6, 1e-6]), row(10, 0.7, [1e-6, 1e-6], [2e-6, 2e-6])])
    assert "CPU" not in text
    assert "| 30 | 30 × 10 | 50.0% | 3.0 | 1.0 | 3.00 (3.00 to 3.00) | 1.6: met | 1.50 | 0.0010 |" in text
    assert "| 10 | 10 × 10 | 70.0% | 1.0 | 2.0 | 0.50 (0.50 to 0.50) | 1.6: missed | 0.15 | 0.0010 |" in text
    assert "| a block |  | 55.0% | 4.0 | 3.0 | 1.33 (1.33 to 1.33) | 1.6: missed | 0.60 | 0.0010 |" in text

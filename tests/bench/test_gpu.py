"""The benchmark of the GPU, tried out without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import main
from bench.gpu_linear import DENSE, SEMI_STRUCTURED, TOKENS, KernelRow
from bench.gpu_pruning import SHAPES, RunRow
from bench.gpu_table import GPUBench, markdown
from tests.test_boundaries import GUESTS

TRIAL = ["--device", "cpu", "--width", "small", "--blocks", "1", "--windows", "2", "--window", "16", "--rounds", "2"]
BARE = """
import sys
for guest in {blocked}:
    sys.modules[guest] = None  # as if it were not installed
from bench.gpu import main
sys.exit(main([]))
"""


def test_tried_out_on_a_cpu_it_measures_everything_and_says_where(tmp_path, capsys):
    assert main([*TRIAL, "--results", str(tmp_path)]) == 0
    text = (tmp_path / "gpu-trial.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "Tried out on a CPU" in text
    (file,) = tmp_path.glob("*-gpu-trial.json")
    stored = json.loads(file.read_text())
    assert stored["trial"] is True
    assert [(tuple(row["shape"]), row["tokens"]) for row in stored["kernels"]] == [
        (shape, tokens) for shape in [(128, 128), (64, 128), (384, 128), (128, 384)] for tokens in TOKENS
    ]
    assert {len(times) for row in stored["kernels"] for times in row["times_s"].values()} == {2}
    runs = [(row["method"], row["pattern"], row["order"]) for row in stored["runs"]]
    assert len(set(runs)) == len(runs) == 8
    assert {row["sparsity"] for row in stored["runs"]} == {0.5}
    assert {row["peak_bytes"] for row in stored["runs"]} == {None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_and_with_nothing_else_installed_it_says_so_in_one_line(tmp_path):
    script = BARE.format(blocked={*GUESTS, "psutil", "gymnasium", "accelerate", "espalier"})
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("device: a CUDA device is needed")


def test_the_real_shape_is_not_tried_on_a_cpu(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--device", "cpu"])
    assert stopped.value.code == 2
    assert "--width: 8b given, on a CPU valid is small" in capsys.readouterr().err


def test_the_8b_shape_has_the_weights_of_an_8b():
    shape = SHAPES["8b"]
    square, shared, wide, down = (outputs * inputs for outputs, inputs in shape.linears)
    blocks = 32 * (2 * square + 2 * shared + 2 * wide + down + 2 * shape.width)
    assert blocks + 2 * shape.vocabulary * shape.width + shape.width == 8_030_261_248  # Llama 3 8B, as published


def test_the_tables_tell_losses_from_gains_and_leave_out_the_trial():
    def kernel(dense, sparse):
        return KernelRow(shape=(64, 32), tokens=16, times_s={DENSE: dense, SEMI_STRUCTURED: sparse}, difference=0.001)

    text = markdown(
        GPUBench(
            command="python -m bench.gpu",
            date="2030-01-02T03:04:05+00:00",
            machine="{}",
            versions="{}",
            trial=False,
            rounds=2,
            shape="8b",
            blocks=32,
            windows=128,
            window=2048,
            windows_at_once=4,
            kernels=(
                kernel([2e-6, 4e-6], [1e-6, 2e-6]),
                kernel([1e-6, 1e-6], [4e-6, 4e-6]),
                kernel([1e-6, 2e-6], [2e-6, 1e-6]),
            ),
            runs=(
                RunRow(
                    method="wanda",
                    pattern="2:4",
                    order="block",
                    seconds=64.0,
                    peak_bytes=3 * 2**29,
                    block_bytes=1,
                    sparsity=0.5,
                ),
            ),
        )
    )
    assert "CPU" not in text
    assert "| 64 × 32 | 16 | 3.0 | 1.5 | 2.00 (2.00 to 2.00) | gain | 0.0010 |" in text
    assert "| 64 × 32 | 16 | 1.0 | 4.0 | 0.25 (0.25 to 0.25) | loss | 0.0010 |" in text
    assert "| no difference |" in text
    assert "| wanda | 2:4 | block | 64.0 | 2.00 | 1.50 | 50.00 % |" in text

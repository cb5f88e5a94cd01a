"""The product for a GPU: interpreted on a CPU, compiled for a GPU that is absent, refused where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.prune.activation import triton_product
from tasks.prune.activation.triton_product import PROGRAMS, TILE_I, TILE_O, check_device, row_product

ROOT = Path(__file__).parents[3]
CASES = Path(__file__).with_name("product_on_gpu.py")
POINTER, NUMBER, CONSTANT = "*bf16", "i32", "constexpr"


def run_cases(**environment):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_interpreted_on_a_cpu():
    pytest.importorskip("triton")
    run_cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    run_cases()


@pytest.mark.parametrize("threshold", [POINTER, None], ids=["threshold", "zeros"])
def test_compiled_for_a_gpu_a_thread_loads_16_bytes_of_a_row_at_once(threshold, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"x_TI": POINTER, "weight_IO": POINTER, "threshold": threshold or CONSTANT, "partial_STO": "*fp32"}
    signature |= {"inputs": NUMBER, "outputs": NUMBER, "of_split": NUMBER, "TILE_I": CONSTANT, "TILE_O": CONSTANT}
    constants = {"TILE_I": TILE_I, "TILE_O": TILE_O} | ({} if threshold else {"threshold": None})
    multiples_of_16 = {(list(signature).index(name),): [["tt.divisibility", 16]] for name in ("weight_IO", "outputs")}
    sum_rows, _ = triton_product._compiled()
    source = ASTSource(fn=sum_rows, signature=signature, constexprs=constants, attrs=multiples_of_16)
    made = build(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})
    assert made.asm["ptx"].count("ld.global.v4.b32") == TILE_I * TILE_O * 2 // (16 * 128)  # by 128 threads
    assert made.asm["cubin"]


@pytest.mark.parametrize("inputs", [1, 31, 4096, 14336])
@pytest.mark.parametrize("outputs", [1, 6144, 28672, 10**6])
def test_every_input_is_in_one_split_and_none_is_empty(inputs, outputs):
    splits, of_split = triton_product._split(inputs, outputs)
    assert of_split % TILE_I == 0
    assert (splits - 1) * of_split < inputs <= splits * of_split
    assert splits == 1 or splits * -(-outputs // TILE_O) <= PROGRAMS


def test_elsewhere_it_is_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"^device: (cpu given, no CUDA|rows are read by a Triton kernel)"):
        row_product(torch.ones(1, 4), torch.ones(4, 4))
    monkeypatch.setattr(triton_product, "triton", None)
    with pytest.raises(ValueError, match=r"^device: .*triton is not installed; install it$"):
        check_device(torch.device("cuda"))

"""The driver's library as NVIDIA documents it, in a stand-in that is compiled from C: two GPUs, one of them divided."""

import logging
import shutil
import subprocess

import pytest

from tasks.train_controller.nvml import GPU, GPUState

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here")
SOURCE = r"""
#include <string.h>
typedef struct device *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
struct device { unsigned long long total, free; int use; };
static struct device devices[2] = {{80ull << 30, 60ull << 30, 35}, {24ull << 30, 6ull << 30, -1}};
static int started = 0;

int nvmlInit_v2(void) { started = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (!started) return 1;
    if (index > 1) return 2;
    *device = &devices[index];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    if (strcmp(uuid, "GPU-1b")) return 6;
    *device = &devices[1];
    return 0;
}
int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    memory->total = device->total; memory->free = device->free; memory->used = device->total - device->free;
    return 0;
}
int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *use) {
    if (device->use < 0) return 3;
    use->gpu = device->use; use->memory = 9;
    return 0;
}
"""
FIRST = GPUState(used=0.35, free_bytes=60 << 30, total_bytes=80 << 30)
SECOND = GPUState(used=0.0, free_bytes=6 << 30, total_bytes=24 << 30)  # nobody tells how busy a part is


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    made = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), str(folder / "nvml.c")], check=True)
    return str(made)


@pytest.mark.parametrize(
    ("device", "environment", "state"),
    [
        ("cuda", {}, FIRST),
        ("cuda:0", {}, FIRST),
        ("cuda:1", {}, SECOND),
        ("cpu", {}, FIRST),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "1"}, SECOND),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "1, 0"}, FIRST),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0,GPU-1b"}, SECOND),
    ],
)
def test_it_is_the_gpu_on_which_the_model_runs(library, device, environment, state):
    assert GPU.find(device, environment, library).state() == state


@pytest.mark.parametrize(
    ("device", "environment", "why"),
    [
        ("cuda:2", {}, "NVML says 2"),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "0"}, "CUDA_VISIBLE_DEVICES is '0'"),
        ("cuda", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is ''"),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-2c"}, "NVML says 6"),
    ],
)
def test_a_gpu_that_is_not_there_is_told(library, device, environment, why, caplog):
    with caplog.at_level(logging.WARNING):
        assert GPU.find(device, environment, library) is None
    assert f"the state of {device} cannot be read, and counts as 0: {why}" in caplog.text


def test_without_a_driver_it_is_told_to_those_who_use_a_gpu(tmp_path, caplog):
    absent = str(tmp_path / "libnvidia-ml.so.1")
    assert GPU.find("cpu", {}, absent) is None
    assert caplog.text == ""
    assert GPU.find("cuda", {}, absent) is None
    assert "the state of cuda cannot be read" in caplog.text

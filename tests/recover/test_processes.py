"""Two processes that `accelerate launch` starts train as one does, and what they leave one can go on from."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tasks.recover import processes
from tasks.recover.recover import recover
from tasks.recover.recovery import Recovery
from tests.recover.text import STEP, pruned_llama, some_windows, weights_of, zeros_of

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tasks" / "recover" / "configs"
RECOVERY = {"tokens": 12 * STEP, "batch": 8, "at_once": 2, "rate": 3e-3}


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """The folder that two processes have written to."""
    folder = tmp_path_factory.mktemp("launched")
    done = launch("recover_ddp.yaml", ROOT / "tests" / "recover" / "worker.py", str(folder), json.dumps(RECOVERY))
    assert done.returncode == 0, done.stderr
    return folder


def launch(config: str, *command: object) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--config_file", CONFIGS / config, "--num_processes", "2", "--main_process_port", port]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("way", ["ddp", "spread"])
def test_two_processes_train_as_one_and_one_can_go_on(launched, way):
    model = pruned_llama()
    alone = recover(model, some_windows(), Recovery(**RECOVERY))
    for rank in (0, 1):
        theirs = json.loads((launched / f"{way}-{rank}-of-2.json").read_text(encoding="utf-8"))
        assert [step["loss"] for step in theirs["curve"]] == pytest.approx(
            [step.loss for step in alone.curve], abs=1e-5
        )
        assert [step["learned"] for step in theirs["curve"]] == [step.learned for step in alone.curve]
        assert theirs["sources"] == [asdict(row) for row in alone.sources]
        assert theirs["zeros"] == alone.zeros

    resumed = pruned_llama()
    again = recover(resumed, some_windows(), Recovery(**RECOVERY), checkpoint=launched / f"{way}.safetensors")
    assert [asdict(step) for step in again.curve] == theirs["curve"]
    assert torch.allclose(weights_of(resumed), weights_of(model), atol=1e-4)
    expected, zeros = zeros_of(model), zeros_of(resumed)
    assert all(torch.equal(zeros[name], expected[name]) for name in expected)


@pytest.mark.parametrize("gpu", [False, True])
def test_fsdp_is_of_version_2_and_spread_by_torch_where_accelerate_would_make_it_ddp(monkeypatch, gpu):
    class Launched:
        process_index, num_processes = 1, 2

        def __init__(self, cpu: bool) -> None:
            assert cpu == (not gpu)

    monkeypatch.setattr("accelerate.Accelerator", Launched)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match=r"^fsdp: version 1 given, valid is 2$"):
        processes.join()
    monkeypatch.setenv("FSDP_VERSION", "2")
    joined = processes.join()
    assert type(joined) is (processes.LaunchedProcesses if gpu else processes.SpreadProcesses)
    assert (joined.rank, joined.count) == (1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="the loopback interface has another name elsewhere")
@pytest.mark.parametrize(("on_this_machine", "interface"), [("2", "lo"), ("1", None)])
def test_processes_of_one_machine_meet_where_no_other_can_reach_them(monkeypatch, on_this_machine, interface):
    class Launched:
        process_index, num_processes = 0, 2

        def __init__(self, cpu: bool) -> None:
            self.interface = os.environ.get("GLOO_SOCKET_IFNAME")

    monkeypatch.setattr("accelerate.Accelerator", Launched)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "set so that it is put back")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", on_this_machine)
    assert processes.join()._accelerator.interface == interface


def test_a_process_that_nobody_launched_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = processes.join()
    assert (type(alone), alone.rank, alone.count) == (processes.Processes, 0, 1)


@pytest.mark.parametrize("name", ["recover_ddp.yaml", "recover_fsdp.yaml"])
def test_accelerate_reads_the_configurations(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / name))
    assert config.mixed_precision == "no"
    assert str(config.distributed_type).endswith("FSDP" if "fsdp" in name else "MULTI_GPU")
    if "fsdp" in name:
        assert config.fsdp_config["fsdp_version"] == 2

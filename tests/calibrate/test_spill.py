import gc

import pytest
import torch

from tasks.calibrate import memory
from tasks.calibrate.memory import free_bytes
from tasks.calibrate.spill import HiddenStates, Spill
from tasks.calibrate.walk import Walk
from tasks.model.anatomy import dissect
from tests.cases import batches, llama


def filled(spill, count=4, size=10):
    hidden = HiddenStates(spill)
    values = [torch.full((size,), float(number)) for number in range(count)]
    for value in values:
        hidden.append(value)
    return hidden, values


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize("limit_bytes", [0, 40, 100, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_waits_comes_back_as_it_was(limit_bytes, dtype, tmp_path):
    hidden = HiddenStates(Spill(limit_bytes, tmp_path))
    values = [torch.randn(2, 5, 3).to(dtype).transpose(0, 1)[:size] for size in (1, 3, 5)]
    for value in values:
        hidden.append(value)
    assert len(hidden) == 3
    assert all(torch.equal(found, value) for found, value in zip(hidden, values, strict=True))
    hidden[1] = values[2]
    assert torch.equal(hidden[1], values[2])
    assert torch.equal(hidden[0], values[0])


def test_only_what_is_beyond_the_limit_goes_to_disk(tmp_path):
    spill = Spill(100, tmp_path)
    hidden, _ = filled(spill)  # of 40 bytes each
    assert (spill.held_bytes, spill.spilled_bytes, hidden.nbytes) == (80, 80, 160)
    assert len(files(tmp_path)) == 2
    hidden[0] = torch.zeros(10)  # takes the room of the one it replaces
    assert (spill.held_bytes, spill.spilled_bytes) == (80, 80)
    hidden[3] = torch.zeros(5)  # small enough for what is left
    assert (spill.held_bytes, spill.spilled_bytes) == (100, 40)
    assert len(files(tmp_path)) == 1


def test_below_the_limit_no_file_is_made(tmp_path):
    filled(Spill(1000, tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_a_gpu_has_made_stays_there_while_there_is_room():
    """Tensors on the device "meta", which cannot be copied to the host, stand for those of a GPU."""
    spill = Spill(1000, device_limit_bytes=100)
    hidden = HiddenStates(spill)
    for _ in range(2):
        hidden.append(torch.empty(10, device="meta"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        hidden.append(torch.empty(10, device="meta"))
    hidden[0] = torch.empty(15, device="meta")  # takes the room of the one it replaces
    hidden.append(torch.empty(10))  # made on the host, it waits there
    assert (spill.device_bytes, spill.held_bytes, hidden.nbytes) == (100, 40, 140)
    assert [each.device.type for each in hidden] == ["meta", "meta", "cpu"]
    del hidden
    gc.collect()
    assert (spill.device_bytes, spill.held_bytes) == (0, 0)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        Spill().put(torch.empty(10, device="meta"))  # no limit can be found out there: none stay


def test_a_twin_costs_nothing_until_it_goes_its_own_way(tmp_path):
    spill = Spill(40, tmp_path)
    hidden, values = filled(spill)
    twin = hidden.twin()
    assert (spill.held_bytes, spill.spilled_bytes) == (40, 120)
    for batch in range(4):
        twin[batch] = -values[batch]
    assert (spill.held_bytes, spill.spilled_bytes) == (40, 280)
    assert all(torch.equal(found, value) for found, value in zip(hidden, values, strict=True))
    assert all(torch.equal(found, -value) for found, value in zip(twin, values, strict=True))
    del twin
    gc.collect()
    assert (spill.held_bytes, spill.spilled_bytes) == (40, 120)


def test_nothing_is_left_in_the_end(tmp_path):
    hidden, _ = filled(Spill(0, tmp_path))
    assert files(tmp_path)
    del hidden
    gc.collect()
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_a_walk_is_the_same_wherever_its_states_wait(tmp_path):
    model = llama()
    anatomy = dissect(model)
    walks = [Walk(model, anatomy, batches(), spill=spill) for spill in (None, Spill(0, tmp_path))]
    assert len(files(tmp_path)) == 2
    for index in range(len(anatomy.blocks)):
        for _ in zip(*(walk.step(index) for walk in walks), strict=True):
            pass
    assert all(torch.equal(*pair) for pair in zip(*(walk.hidden for walk in walks), strict=True))


def test_the_limit_is_a_quarter_of_what_is_free():
    assert 0 < Spill().limit_bytes <= free_bytes() / 3


@pytest.mark.parametrize(
    ("membership", "place", "files", "free"),
    [
        ("0::/a/b", "a", {"memory.max": "1000", "memory.stat": "anon 300\nfile 900"}, 700),
        ("0::/a/b", "a/b", {"memory.max": "max", "memory.stat": "anon 300"}, 8192),
        ("0::/", ".", {"memory.max": "100", "memory.stat": "anon 300"}, 0),
        ("8:memory:/x\n3:cpu:/y", "memory/x", {"memory.limit_in_bytes": "500", "memory.stat": "total_rss 100"}, 400),
        ("0::/gone", "elsewhere", {"memory.max": "10", "memory.stat": "anon 1"}, 8192),
    ],
)
def test_free_memory_is_that_of_the_narrowest_group(membership, place, files, free, tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  16 kB\nMemAvailable:  8 kB\nHugePages_Total: 0\n")
    (tmp_path / "cgroup").write_text(membership + "\n")
    group = tmp_path / "groups" / place
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name).write_text(content + "\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    assert free_bytes() == free

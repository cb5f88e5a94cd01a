"""`python -m bench.larger_than_memory`: a checkpoint of 3.3 GB, pruned by every method in a process that gets 1.5 GB.

The stage `prune` runs as it does in a flow, in a control group whose limit the kernel enforces: a process that needs
more is killed. One run is then killed on purpose at half of its blocks and started again: it must end with the same
bytes. Needs Linux, and the right to make a control group (root).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.handles import Checkpoint, Tokens
from tasks.model.load import fingerprint
from tasks.prune import PRUNERS
from tasks.prune.journal import MARK
from tasks.prune.task import prune
from tasks.prune.weight.pattern import NM
from tasks.prune.weight.recipe import Recipe
from tasks.record import home

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "larger-than-memory.md"
GROUPS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))  # versions 1 and 2
BLOCKS, WIDTH, FFN, VOCABULARY, WINDOW = 64, 1024, 2816, 3072, 128
SHARD_BYTES = 900e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.larger_than_memory", description=__doc__)
    parser.add_argument("--folder", type=Path, help="for the checkpoint, which is kept (a temporary one)")
    parser.add_argument("--limit-bytes", type=int, default=1_500_000_000, help="of the process (1500000000)")
    parser.add_argument("--windows", type=int, default=4, help=f"of calibration, {WINDOW} tokens each (4)")
    parser.add_argument("--methods", nargs="+", choices=PRUNERS, default=list(PRUNERS), help="all by default")
    parser.add_argument("--kill", choices=PRUNERS, default="wanda", help="the run of it to kill at half (wanda)")
    choice = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, limited(choice.limit_bytes) as group:
        place = choice.folder or Path(temporary)
        size = make_checkpoint(place / "model")
        lines = [
            f"{size / 1e9:.2f} GB of weights ({BLOCKS} blocks, float32), {choice.windows} windows of {WINDOW} tokens, "
            f"2:4, {torch.get_num_threads()} thread, a limit of {choice.limit_bytes / 1e9:.2f} GB:",
            "",
            "| method | seconds | peak resident MB |",
            "|---|---|---|",
        ]
        stored = {}
        for method in choice.methods:
            stored[method] = measured = run(method, place, choice.windows, group)
            lines.append(f"| {method} | {measured['seconds']:.0f} | {measured['peak'] / 1e6:.0f} |")
            say(lines[-1])
        if choice.kill in stored:
            again = run(choice.kill, place, choice.windows, group, kill_at=BLOCKS // 2)
            same = "the same" if again["hash"] == stored[choice.kill]["hash"] else "OTHER"
            lines += [
                "",
                f"{choice.kill} killed with {again['done']} of {BLOCKS} blocks in its journal and run again: "
                f"{again['seconds']:.0f} s for the rest, {same} bytes.",
            ]
            say(lines[-1])
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(method: str, place: Path, windows: int, group: Path, kill_at: int | None = None) -> dict:
    """What the child prints, in an artifacts folder that is empty before and removed after; perhaps killed once."""
    with tempfile.TemporaryDirectory(dir=place) as artifacts:
        words = [sys.executable, "-m", "bench.larger_than_memory", "child", method, str(place), str(windows)]

        def start() -> subprocess.Popen:
            environment = os.environ | {"ESPALIER_ARTIFACTS": artifacts}
            enter = ["sh", "-c", f'echo $$ > {group / "cgroup.procs"} && exec "$@"', "sh"]
            return subprocess.Popen(enter + words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

        done, process = 0, start()
        while kill_at is not None and done < kill_at:
            marks = list(Path(artifacts).glob(f"store/.unfinished/*/{MARK}"))
            done = len(json.loads(marks[0].read_text())) if marks else 0
            if process.poll() is not None:
                raise RuntimeError(f"{method}: it has ended before it could be killed")
            time.sleep(0.05)
        if kill_at is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start()
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{method}: ended with {process.returncode}; -9 is the kernel's answer to the limit")
    return json.loads(printed.splitlines()[-1]) | {"done": done}


def child(method: str, place: Path, windows: int) -> None:
    """Prune once, here."""
    ids = torch.randint(VOCABULARY, (windows, WINDOW), generator=torch.Generator().manual_seed(0))
    with home.store("tokens") as draft:
        save_file({"ids": ids}, draft.path / "tokens.safetensors")
    counts = {"documents": 1, "text_bytes": 1, "tokens": ids.numel(), "windows": windows, "window": WINDOW}
    tokens = Tokens(hash=draft.stored.hash, folder=draft.stored.folder, source="random", dataset_hash="", **counts)
    folder = place / "model"
    started = time.perf_counter()
    pruned = prune.fn(
        model=Checkpoint(hash=fingerprint(folder), folder=str(folder.absolute())),
        calibration=tokens,
        recipe=Recipe(pruner=PRUNERS[method](), pattern=NM(n=2, m=4)),
        allocation=None,
        device="cpu",
    )
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(lines["VmHWM"].split()[0]) * 1024
    print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak, "hash": pruned.checkpoint.hash}))


def make_checkpoint(folder: Path) -> int:
    """Its size in bytes; random weights in shards, written a shard at a time."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=FFN,
        num_hidden_layers=BLOCKS,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in LlamaForCausalLM(config).named_parameters()}
    size = sum(4 * shape.numel() for shape in shapes.values())
    if (folder / "model.safetensors.index.json").is_file():
        return size
    config.save_pretrained(folder)
    generator, shard, file_of = torch.Generator().manual_seed(0), dict[str, torch.Tensor](), dict[str, str]()
    for name, shape in shapes.items():
        shard[name] = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.02
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES or len(file_of) + len(shard) == len(shapes):
            file = f"model-{len(set(file_of.values())) + 1:05d}.safetensors"
            save_file(shard, folder / file, {"format": "pt"})
            file_of |= dict.fromkeys(shard, file)
            shard.clear()
    index = {"metadata": {"total_size": size}, "weight_map": file_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


@contextmanager
def limited(limit_bytes: int) -> Iterator[Path]:
    """A control group whose processes together get so many bytes, page cache included."""
    root, limit = next(group for group in GROUPS if Path(group[0], "cgroup.procs").is_file())
    group = Path(root, f"espalier-{os.getpid()}")
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group
    finally:
        group.rmdir()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()

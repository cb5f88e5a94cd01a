"""Peak memory of one run, in a fresh process that does nothing else: how far it grows above the loaded model.

Linux only: the kernel keeps the peak of the resident set, and /proc lets a process set it back once the model is
loaded. (The peak that `getrusage` reports would begin with what the parent held.) glibc's allocator is told to hand
freed tensors back at once, so that what is resident is in use; by default it keeps some of them, by chance.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from bench.models import SUBJECTS
from bench.sides import sides_of
from tasks.peak import forget_peak, resident_bytes

ROOT = Path(__file__).parents[1]
TRIAL_TOKENS = 16


def peak_bytes(subject: str, method: str, pattern: str, side: str, threads: int) -> int:
    """Bytes above the loaded model at the peak of one run. RuntimeError, with what it said, where the process fails."""
    command = [sys.executable, "-m", "bench.memory", json.dumps([subject, method, pattern, side, threads])]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"memory: {side} {method} {pattern} on {subject} failed:\n{done.stderr}")
    return int(done.stdout.splitlines()[-1])


def main(subject: str, method: str, pattern: str, side: str, threads: int) -> None:
    """Print the bytes. A short forward comes first: what libraries allocate once belongs to no side."""
    torch.set_num_threads(threads)
    model, batches = SUBJECTS[subject].load(), SUBJECTS[subject].batches()
    with torch.no_grad():
        model(batches[0][:1, :TRIAL_TOKENS])
    gc.collect()
    forget_peak()
    before = resident_bytes("VmRSS")
    sides_of(method, pattern)[side](model, batches)
    print(resident_bytes("VmHWM") - before)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))

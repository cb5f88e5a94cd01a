"""The environments of the peers: a venv each, made on first use in `bench/.peers`, with pinned versions."""

import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / ".peers"
SHARED = ("torch==2.13.0", "transformers==5.17.0", "numpy==2.4.6", "safetensors==0.8.0")  # the peers' newest in common
REQUIREMENTS = {
    "llm-compressor": ("llmcompressor==0.14.0.1", *SHARED),
    "modelopt": ("nvidia-modelopt==0.47.0", "requests==2.34.2", *SHARED),  # it imports requests without asking for it
}


class NotInstalled(Exception):  # noqa: N818 - recorded beside the peers that are
    """An environment could not be made; the last line of what pip said."""


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made where it is absent or made for other versions."""
    folder = ENVIRONMENTS / peer
    python, installed = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[peer]) + "\n"
    if installed.is_file() and installed.read_text() == wanted:
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotInstalled(last_line(done.stderr or done.stdout))
    installed.write_text(wanted)
    return python


def last_line(text: str) -> str:
    """The last line that says something; of a traceback, the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")

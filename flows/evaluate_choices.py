"""What the flow `evaluate` is told: a model, benchmarks, where their questions lie, and how they are asked."""

import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from flows.texts import DeviceText, Seed, Told
from tasks.evaluate.suites import Asking, parse_suite


def _suite(text: str) -> str:
    parse_suite(text)
    return text


class Evaluate(Told):
    """One run of the flow `evaluate`."""

    model: str = Field("builtin", description="a folder, a name on the hub, or 'builtin'")
    dense: str | None = Field(None, description="what it was made of; by default what the stored rows say")
    suite: Annotated[str, AfterValidator(_suite)]
    tasks_data: str | None = Field(None, description="a folder of local files; by default the hub")
    limit: int | None = Field(None, ge=1, description="of each task only the first so many questions")
    batch: int = Field(8, ge=1, description="requests that are computed at once")
    chat: bool = Field(False, description="ask in the tokenizer's chat template")
    keep_samples: bool = Field(False, description="store every reply")
    seed: Seed = Field(0, description="of the solved examples that are drawn")
    device: DeviceText = "auto"

    def askings(self) -> tuple[Asking, ...]:
        how: dict[str, Any] = {"limit": self.limit, "batch": self.batch, "chat": self.chat, "seed": self.seed}
        return tuple(Asking(benchmark=benchmark, **how) for benchmark in parse_suite(self.suite))

    def command(self) -> str:
        """The command line that repeats this run."""
        words = ["espalier", "evaluate", "--model", self.model, "--suite", self.suite]
        words += self._changed("dense", "tasks_data", "limit", "batch")
        words += [f"--{name.replace('_', '-')}" for name in ("chat", "keep_samples") if getattr(self, name)]
        return shlex.join([*words, *self._changed("seed", "device")])

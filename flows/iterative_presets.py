"""Whole runs of `iterative` by name: `espalier iterative --preset NAME`, of which other words change single settings.

The six pairs of models are those of Adapt-Accel (arXiv:2502.03460): calibration on 512 windows of 64 tokens, units by
Taylor as in its code, training on windows of 1,024 in batches of 128. How many tokens these are trained on is not part
of a pair: it is 2^30 here, and `--recover-tokens` says another number. The names of texts read the first 4,000 rows of
each; for more give files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows.iterative_choices import Iterative, parse_allocator
from flows.methods import parse_importance

TOKENS = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Preset:
    """`parameters` of the flow, and how many its model has: None where that can be counted on any machine."""

    flow: Iterative
    before: int | None


def _pair(model: str, before: float, after: float, stages: int, text: str = "slimpajama") -> Callable[[], Preset]:
    """From `before` million parameters to `after`."""

    def make() -> Preset:
        return Preset(
            flow=Iterative.parse(
                model=model,
                target_parameters=round(after * 1e6),
                stages=stages,
                importance=parse_importance("taylor"),
                allocator=parse_allocator("adapt"),
                calibration=text,
                evaluation="wikitext2",
                samples=512,
                calibration_window=64,
                window=1024,
                recover_tokens=TOKENS,
                recover_batch=128,
                recover_at_once=8,
            ),
            before=round(before * 1e6),
        )

    return make


def small() -> Preset:
    """The built-in model loses a third in three stages: minutes on two cores. Runs on stories3M with --model too."""
    window, batch = 256, 16
    return Preset(
        flow=Iterative.parse(
            model="builtin",
            target_parameters=1_900_000,
            stages=3,
            importance=parse_importance("wanda_sp"),
            allocator=parse_allocator("adapt"),
            samples=64,
            window=window,
            round_to=16,
            recover_tokens=48 * batch * window,
            recover_rate=5e-4,
            recover_batch=batch,
        ),
        before=None,
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    "small": small,
    "mobilellm-350m": _pair("facebook/MobileLLM-350M", 376.1, 143.1, 20),
    "mobilellm-600m": _pair("facebook/MobileLLM-600M", 603, 376, 9),
    "mobilellm-1b": _pair("facebook/MobileLLM-1B", 1005, 603, 10),
    "qwen2.5-0.5b": _pair("Qwen/Qwen2.5-0.5B", 494, 376, 5),
    "deepseek-r1-distill-qwen-1.5b": _pair("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1777, 1005, 11, "openhermes"),
    "llama-3.2-1b": _pair("meta-llama/Llama-3.2-1B", 1240, 980, 2),
}


def preset_named(name: str, **changed: Any) -> Preset:
    """A preset with fields of its flow changed; of another model `before` has to be counted.

    ValueError lists the names there are, and says which field is not valid.
    """
    if name not in PRESETS:
        raise ValueError(f"preset: {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]()
    flow = Iterative.parse(**dict(preset.flow) | changed)
    return Preset(flow=flow, before=preset.before if flow.model == preset.flow.model else None)

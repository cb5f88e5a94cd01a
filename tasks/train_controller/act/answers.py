"""What goes into a decision and what comes out of it: the reader of the machine, the decision, the answer."""

import math
from dataclasses import dataclass
from typing import Protocol

from tasks.train_controller.act.actions import Action
from tasks.train_controller.observation import Hardware, Observation


class Reader(Protocol):
    """Whoever knows how busy the machine is (tasks.train_controller.state.HardwareReader)."""

    def read(self) -> Hardware:
        """As it is now."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action, and what it was chosen by."""

    action: Action
    observation: Observation
    scores: dict[str, float]  # action -> its score, -inf where the floor bars it; empty where no policy was asked
    floor: float | None  # the largest rise that the policy allows
    named: bool  # by the caller, in place of what a policy would choose
    decision_ms: float  # to see and to choose, beyond the prefill; 0 where nothing chose

    @property
    def why(self) -> str:
        """One sentence: how the action stands beside the others, the prompt, the machine."""
        prompt, hardware = self.observation.prompt, self.observation.hardware
        machine = f"{hardware.cpu_use:.0%} of the CPU is in use and {hardware.memory_free:.0%} of the memory is free"
        if hardware.has_gpu:
            machine += f", {hardware.gpu_use:.0%} of the GPU is in use"
        return (
            f"{self._standing()}; the prompt has {prompt.tokens:,} tokens, a perplexity of {prompt.ppl:.1f} and a "
            f"complexity of {prompt.complexity:.2f}; {machine}."
        )

    def _standing(self) -> str:
        own = self.scores.get(str(self.action))
        if own is None:
            return f"{self.action} was {'asked for' if self.named else 'taken, as there is no policy to choose'}"
        others = {name: score for name, score in self.scores.items() if name != str(self.action)}
        free = [name for name, score in others.items() if score > -math.inf]
        said = f"{self.action} was chosen with a score of {own:.3f}"
        if free:
            best = max(free, key=others.__getitem__)
            said += f", ahead of {best} with {others[best]:.3f}"
        if len(free) < len(others):
            said += f", {len(others) - len(free)} of {len(self.scores)} actions may lose more than {self.floor:.0%}"
        return said


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was written for a prompt, and what it took."""

    text: str
    finish: str  # stop: a stop token or string has come | length: as many tokens as were asked for or fit the context
    decision: Decision
    prompt_tokens: int
    tokens: int  # that were computed, a stop token and those of a stop string included
    prefill_ms: float
    switch_ms: float  # to put the profile in force, to fit the cache to it, and to go back
    decode_ms: float  # per token
    tokens_per_s: float  # of the whole answer: tokens / (prefill, decision, switch and all decoding)
    cache_bytes: int  # of the prompt's cache as the action keeps it

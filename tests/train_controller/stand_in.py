"""A controller that writes words without a model, as fast as it is let, and remembers what it was asked."""

import hashlib
import math
import threading
import time
from collections.abc import Iterator

from tasks.train_controller.act.actions import Action
from tasks.train_controller.act.answers import Answer, Decision
from tasks.train_controller.observation import Hardware, Observation, PromptFeatures

CONTEXT = 511
OBSERVATION = Observation(
    hardware=Hardware(cpu_use=0.25, memory_free=0.5),
    prompt=PromptFeatures(tokens=20, ppl=10.0, entropy=0.5, confidence=0.25, worst=0.75, first_block=0.125),
)
DECISION = Decision(
    action=Action(profile="ffn20"),
    observation=OBSERVATION,
    scores={"none": 1.0, "ffn20": 1.5, "ffn30": -math.inf},
    floor=0.05,
    named=False,
    decision_ms=0.5,
)


class Tokenizer:
    chat_template = None


class StandIn:
    """Each word depends on the prompt, the seed and its place. `hold`: clear it, and no word comes after the first.

    `mute`: tokens give no text, as those of a character that is never whole.
    """

    tokenizer = Tokenizer()

    def __init__(self, pace_s: float = 0.0, *, mute: bool = False, decision: Decision = DECISION) -> None:
        self.pace_s, self.mute, self.decision = pace_s, mute, decision
        self.hold = threading.Event()
        self.hold.set()
        self.begun: list[str] = []
        self.closed: list[str] = []
        self.written = 0

    def stream(
        self, prompt: str, *, new_tokens: int, temperature: float, top_p: float, seed: int, stop: tuple[str, ...]
    ) -> Iterator[str | Answer]:
        if len(prompt.split()) > CONTEXT:
            raise ValueError(f"prompt: {len(prompt.split())} tokens given, valid is at most {CONTEXT}")
        return self._write(prompt, new_tokens, seed if temperature else 0, stop)

    def _write(self, prompt: str, new_tokens: int, seed: int, stop: tuple[str, ...]) -> Iterator[str | Answer]:
        self.begun.append(prompt)
        text, finish = "", "length"
        try:
            for number in range(new_tokens):
                if prompt == "break" and number == 2:
                    raise RuntimeError("the model is broken")
                word = "" if self.mute else word_of(prompt, seed, number)
                if word.strip() in stop:
                    finish = "stop"
                    break
                yield word
                text += word
                self.written += 1
                time.sleep(self.pace_s)
                assert self.hold.wait(120)
        except GeneratorExit:
            self.closed.append(prompt)
            raise
        yield answer_of(prompt, text, finish, new_tokens, self.decision)


def word_of(prompt: str, seed: int, number: int) -> str:
    return " " + hashlib.sha256(f"{prompt}/{seed}/{number}".encode()).hexdigest()[:6]


def text_of(prompt: str, tokens: int, seed: int = 0) -> str:
    return "".join(word_of(prompt, seed, number) for number in range(tokens))


def answer_of(prompt: str, text: str, finish: str, tokens: int, decision: Decision) -> Answer:
    return Answer(
        text=text,
        finish=finish,
        decision=decision,
        prompt_tokens=len(prompt.split()),
        tokens=tokens,
        prefill_ms=2.0,
        switch_ms=0.25,
        decode_ms=1.0,
        tokens_per_s=100.0,
        cache_bytes=4096,
    )

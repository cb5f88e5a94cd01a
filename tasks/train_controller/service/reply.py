"""An answer in the shapes of OpenAI's completions and chat completions, whole and as the events of a stream.

Beside OpenAI's fields the whole reply, or the last choice of a stream, has `espalier`: what `facts` says.
"""

import json
import math
import secrets
import time
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from tasks.train_controller.act.answers import Answer
from tasks.train_controller.service.request import Asked

Json = dict[str, Any]
DONE = "data: [DONE]\n\n"


def facts(answer: Answer) -> Json:
    """What the controller did: the action, why in a sentence, the score of each action, what it saw, the times.

    A score is null where the policy's `floor`, the largest rise that it allows, bars the action. `state`: what it saw,
    tasks.train_controller.observation, 0 to 1. `decode_ms` is per token, `tokens_per_s` counts reading the prompt too.
    """
    decision = answer.decision
    return {
        "action": str(decision.action),
        "why": decision.why,
        "scores": {action: score if math.isfinite(score) else None for action, score in decision.scores.items()},
        "floor": decision.floor,
        "state": decision.observation.as_dict(),
        "prefill_ms": answer.prefill_ms,
        "decision_ms": decision.decision_ms,
        "switch_ms": answer.switch_ms,
        "decode_ms": answer.decode_ms,
        "tokens_per_s": answer.tokens_per_s,
        "cache_bytes": answer.cache_bytes,
    }


def event(chunk: Json) -> str:
    """An event as a stream sends it (server-sent events)."""
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


class Reply(ABC):
    """The reply to one request."""

    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    prefix: ClassVar[str]

    def __init__(self, asked: Asked, model: str) -> None:
        self._usage = asked.usage
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, answer: Answer) -> Json:
        choice = {"index": 0, **self._said(answer.text), "finish_reason": answer.finish, "logprobs": None}
        head = {**self._head, "object": self.whole_kind}
        return head | {"choices": [choice], "usage": _usage(answer), "espalier": facts(answer)}

    def begin(self) -> list[Json]:
        """What a stream sends before the first piece."""
        return []

    def piece(self, text: str) -> Json:
        return self._chunk(self._added(text))

    def end(self, answer: Answer) -> list[Json]:
        """What a stream sends after the last piece."""
        last = self._chunk(self._added(""), answer.finish) | {"espalier": facts(answer)}
        usage = {**self._head, "object": self.chunk_kind, "choices": [], "usage": _usage(answer)}
        return [last, usage] if self._usage else [last]

    def _chunk(self, added: Json, finish: str | None = None) -> Json:
        choice = {"index": 0, **added, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": self.chunk_kind, "choices": [choice]}

    @abstractmethod
    def _said(self, text: str) -> Json:
        """The whole text in a choice."""

    @abstractmethod
    def _added(self, text: str) -> Json:
        """A piece of it in a choice; nothing at the end."""


class CompletionReply(Reply):
    """Of /v1/completions."""

    whole_kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def _said(self, text: str) -> Json:
        return {"text": text}

    def _added(self, text: str) -> Json:
        return {"text": text}


class ChatReply(Reply):
    """Of /v1/chat/completions."""

    whole_kind, chunk_kind = "chat.completion", "chat.completion.chunk"
    prefix = "chatcmpl"

    def begin(self) -> list[Json]:
        return [self._chunk({"delta": {"role": "assistant", "content": ""}})]

    def _said(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}

    def _added(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}


def _usage(answer: Answer) -> Json:
    read, written = answer.prompt_tokens, answer.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

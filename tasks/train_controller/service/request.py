"""From the JSON of a request to what is asked: every field is honoured or refused by its name, none is passed over.

Fields that are not honoured may be null, or have the value that asks for what is done anyway (`NEUTRAL`).
`user`, a text by which clients say for whom they ask, is taken and changes nothing.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Any

from tasks.train_controller.service.chat import ChatTemplate, Prompt
from tasks.train_controller.service.refusal import Refused, check_unicode

Body = dict[str, Any]

COMMON = ("model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user")
COMPLETION, CHAT = (*COMMON, "prompt"), (*COMMON, "messages", "max_completion_tokens")
NEUTRAL: Body = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "logit_bias": {},
    "tools": [],
    "response_format": {"type": "text"},
    "suffix": "",
}
MOST_STOPS = 4
LEAST_TOP_P = 0.01
MOST_SEED = 2**63 - 1
TOKENS = 16  # of a completion that does not say how many, as OpenAI has it


@dataclass(frozen=True, kw_only=True)
class Question:
    """One prompt, and how it is to be answered: what `Controller.stream` takes."""

    prompt: Prompt
    new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question, and how its answer is to be sent; `usage`: a stream ends with the number of its tokens."""

    question: Question
    stream: bool
    usage: bool


def parse_body(text: bytes) -> Body:
    """The object of a request. Raises `Refused`, 400, for what is none."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"body: not JSON in UTF-8, {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, f"body: {type(body).__name__} given, valid is a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def read_completion(body: Body, model: str, most_tokens: int) -> Asked:
    """What /v1/completions is asked. Raises `Refused`: 404 for another model, 400 for a field."""
    _check_fields(body, COMPLETION, model)
    prompt = read_text(body.get("prompt"), "prompt")
    return _asked(body, prompt, (), _whole(body, "max_tokens", 1, most_tokens, min(TOKENS, most_tokens)))


def read_chat(body: Body, model: str, most_tokens: int, template: ChatTemplate) -> Asked:
    """What /v1/chat/completions is asked; as long an answer as may be, unless it says. Errors as of a completion."""
    _check_fields(body, CHAT, model)
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise Refused(400, "max_tokens: given beside max_completion_tokens, valid is one of them", field="max_tokens")
    name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
    prompt = template.render(body.get("messages"))
    return _asked(body, prompt, template.stop, _whole(body, name, 1, most_tokens, most_tokens))


def read_text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{field}: {_given(value)}, valid is a text", field=field)
    check_unicode(value, field)
    return value


def _check_fields(body: Body, honoured: tuple[str, ...], model: str) -> None:
    for name, value in body.items():
        if name not in honoured and not (name in NEUTRAL and value == NEUTRAL[name]):
            valid = f"{json.dumps(NEUTRAL[name])}, or to leave it out" if name in NEUTRAL else "to leave it out"
            raise Refused(400, f"{name}: not supported by this service, valid is {valid}", field=name)
    if not isinstance(body.get("user", ""), str):
        raise Refused(400, f"user: {_given(body['user'])}, valid is a text", field="user")
    asked = read_text(body.get("model"), "model")
    if asked != model:
        raise Refused(404, f"model: {asked!r} given, the one that is served is {model!r}", field="model")


def _asked(body: Body, prompt: Prompt, own_stops: tuple[str, ...], new_tokens: int) -> Asked:
    question = Question(
        prompt=prompt,
        new_tokens=new_tokens,
        temperature=_number(body, "temperature", 0.0, 2.0, 1.0),
        top_p=_number(body, "top_p", LEAST_TOP_P, 1.0, 1.0),
        seed=_whole(body, "seed", 0, MOST_SEED, secrets.randbelow(MOST_SEED)),
        stop=_stops(body) + own_stops,
    )
    stream = _flag(body, "stream", "stream")
    options = body.get("stream_options", {})
    if not isinstance(options, dict) or options.keys() - {"include_usage"} or (options and not stream):
        valid = "include_usage alone, beside stream"
        raise Refused(400, f"stream_options: {_given(options)}, valid is {valid}", field="stream_options")
    return Asked(question=question, stream=stream, usage=_flag(options, "include_usage", "stream_options"))


def _stops(body: Body) -> tuple[str, ...]:
    given = body.get("stop", [])
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or len(texts) > MOST_STOPS:
        raise Refused(400, f"stop: {_given(given)}, valid is a text, or up to {MOST_STOPS} in a list", field="stop")
    return tuple(read_text(text, "stop") for text in texts)


def _flag(body: Body, name: str, field: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Refused(400, f"{field}: {_given(value)}, valid is true or false", field=field)
    return value


def _whole(body: Body, name: str, low: int, high: int, usual: int) -> int:
    value = body.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(400, f"{name}: {_given(value)}, valid is a whole number from {low} to {high}", field=name)
    return value


def _number(body: Body, name: str, low: float, high: float, usual: float) -> float:
    value = body.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(400, f"{name}: {_given(value)}, valid is a number from {low:g} to {high:g}", field=name)
    return float(value)


def _given(value: Any) -> str:
    """What was given, in few words: a request may be long."""
    if value is None:
        return "none given"
    text = json.dumps(value)
    return f"{text if len(text) <= 40 else text[:40] + ' …'} given"

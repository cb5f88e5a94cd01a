"""From the messages of a chat to a prompt: by the tokenizer's own template, or else by a plain one.

The plain template writes who speaks before what is said, with an empty line between turns, and leaves the last turn to
the assistant; where the model goes on with a turn of the user, the answer ends:

    System: You are brief.

    User: What is an espalier?

    Assistant:
"""

from typing import Any

from jinja2.exceptions import TemplateError  # comes with torch; what templates of tokenizers raise
from transformers import PreTrainedTokenizerBase

from tasks.train_controller.service.refusal import Refused, check_unicode

SPEAKERS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
BETWEEN = "\n\n"

Prompt = str | tuple[int, ...]  # a text, or the ids of one that has its special tokens already


class ChatTemplate:
    """How a model is told a chat; `stop`: texts that end its turn, beside those that a request names."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.stop = () if tokenizer.chat_template else (f"\n{SPEAKERS['user']}:",)

    def render(self, messages: Any) -> Prompt:
        """The prompt of `messages`. Raises `Refused`, 400, for what is no chat, or none that the template takes."""
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "messages: none given, valid is a list of one or more", field="messages")
        turns = [_turn(message, f"messages[{number}]") for number, message in enumerate(messages)]
        if not self._tokenizer.chat_template:
            said = [f"{SPEAKERS[turn['role']]}: {turn['content'].strip()}" for turn in turns]
            return BETWEEN.join([*said, f"{SPEAKERS['assistant']}:"])
        try:
            text = str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise Refused(400, f"messages: the model's chat template: {error}", field="messages") from error
        return tuple(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _turn(message: Any, place: str) -> dict[str, str]:
    """Role and text of a message, whose content is a text, or a list of parts that are texts."""
    if not isinstance(message, dict):
        raise Refused(400, f"{place}: valid is an object with role and content", field=place)
    if others := sorted(message.keys() - {"role", "content"}):
        field = f"{place}.{others[0]}"
        raise Refused(400, f"{field}: not supported by this service, valid is to leave it out", field=field)
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in SPEAKERS:
        raise Refused(400, f"{place}.role: {role!r} given, valid is {', '.join(SPEAKERS)}", field=f"{place}.role")
    if isinstance(content, list):
        content = "".join(_part(part, f"{place}.content[{number}]") for number, part in enumerate(content))
    if not isinstance(content, str):
        raise Refused(400, f"{place}.content: valid is a text", field=f"{place}.content")
    check_unicode(content, f"{place}.content")
    return {"role": role, "content": content}


def _part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.keys() != {"type", "text"} or not isinstance(part["text"], str):
        raise Refused(400, f'{place}: valid is {{"type": "text", "text": …}}', field=place)
    if part["type"] != "text":
        raise Refused(400, f"{place}.type: {part['type']!r} given, valid is text", field=f"{place}.type")
    return part["text"]

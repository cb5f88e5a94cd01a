"""Conversations to tokens and labels: only what the assistant says is learned.

A conversation is rendered by the tokenizer's chat template. Where the template marks the assistant's words itself
({% generation %}), its marks are taken. Elsewhere a turn is what the rendering grows by when it is added, beyond the
prompt that asks for it: the words, and what ends them, since a model must learn to end. What was rendered for the turns
before may then not change: a template that rewrites earlier turns is refused.

Axes: T tokens of all conversations, one after the other.
"""

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.data.mixture import UNTRAINED

Message = dict[str, str]  # role: system | user | assistant; content
Conversation = list[Message]

ASSISTANT = "assistant"
ROLES = {"system": "system", "human": "user", "user": "user", "gpt": ASSISTANT, ASSISTANT: ASSISTANT}
LISTS = (("messages", "role", "content"), ("conversations", "from", "value"))
PAIRS = (("instruction", "output"), ("instruction", "response"), ("prompt", "answer"), ("question", "answer"))
MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


def read_chat(path: Path, start: int = 0, stop: int | None = None) -> list[Conversation]:
    """The conversations of a file: .jsonl, a row a line, or .json, one list of rows; `start` and `stop` count rows.

    A row has `messages` (role, content), `conversations` (from, value), or a pair such as `instruction` and `output`.
    ValueError, with the row's number, for any other, and for another kind of file.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"source: {path} given, valid for conversations is .json or .jsonl")
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if path.suffix == ".json" else map(json.loads, filter(str.strip, text.split("\n")))
        return [_conversation(path, number, row) for number, row in enumerate(islice(rows, start, stop), start)]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"source: {path} is not JSON in UTF-8: {error}") from error


def encode_chat(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """ids_T and labels_T (int64): the label of a token is its id where the assistant says it, UNTRAINED elsewhere.

    ValueError for a tokenizer without a chat template, or for a conversation, named by its index, in which the
    assistant says nothing or whose turns cannot be told apart.
    """
    if not tokenizer.chat_template:
        raise ValueError("tokenizer: it has no chat template, so conversations cannot be rendered")
    if not tokenizer.is_fast:
        raise ValueError("tokenizer: a slow one given, which does not say where in a text its tokens stand")
    find = _spoken_by_marks if MARKED.search(str(tokenizer.chat_template)) else _spoken_by_growth
    ids: list[Tensor] = []
    labels: list[Tensor] = []
    for index, conversation in enumerate(conversations):
        try:
            ids_T, spoken_T = find(conversation, tokenizer)
        except ValueError as error:
            raise ValueError(f"conversation {index}: {error}") from error
        if not spoken_T.any():
            raise ValueError(f"conversation {index}: the assistant says nothing in it, so there is nothing to learn")
        ids.append(ids_T)
        labels.append(torch.where(spoken_T, ids_T, UNTRAINED))
    if not ids:
        raise ValueError("conversations: none given, valid is one or more")
    return torch.cat(ids), torch.cat(labels)


def is_conversation(row: Any) -> bool:
    """Whether a row of a file has one of the forms of `read_chat`; one with a `text` is a document."""
    return isinstance(row, dict) and "text" not in row and bool(_turns(row))


def _spoken_by_marks(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """The tokens of a conversation, and which of them the template marks as generated."""
    encoded: Any = tokenizer.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    return torch.tensor(encoded["input_ids"]), torch.tensor(encoded["assistant_masks"]).bool()


def _spoken_by_growth(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """The tokens of a conversation, and which of them stand in what an assistant's turn adds to the text.

    A token may begin in the prompt where white space is all that it has of it, as the "▁Lily" of a first word.
    """
    text = _render(conversation, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids_T = torch.tensor(encoded["input_ids"], dtype=torch.int64)
    offsets = torch.tensor(encoded["offset_mapping"], dtype=torch.int64).view(-1, 2)
    spoken_T = torch.zeros(len(ids_T), dtype=torch.bool)
    for turn, message in enumerate(conversation):
        if message["role"] != ASSISTANT:
            continue
        if turn == 0:
            raise ValueError("the assistant speaks first, valid is to answer another's turn")
        before = _render(conversation[:turn], tokenizer, ask=True)
        after = _render(conversation[: turn + 1], tokenizer)
        if not (after.startswith(before) and text.startswith(after)):
            raise ValueError(
                f"the template renders turn {turn} otherwise once more follows, so what is the assistant's cannot be "
                "told; valid is a template with {% generation %} marks"
            )
        spoken_T |= (
            (offsets[:, 0] >= len(before.rstrip()))
            & (offsets[:, 1] > len(before))
            & (offsets[:, 1] <= len(after))
            & (offsets[:, 0] < offsets[:, 1])
        )
    return ids_T, spoken_T


def _render(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, ask: bool = False) -> str:
    """The text of a conversation; `ask`: with the prompt for the assistant's next turn."""
    return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=ask))


def _conversation(path: Path, number: int, row: Any) -> Conversation:
    """The messages of a row, whichever of the usual forms it has."""
    messages = []
    for role, content in _turns(row):
        if not (isinstance(role, str) and role in ROLES and isinstance(content, str)):
            raise ValueError(f"source: row {number} of {path} has a turn of {role!r}, valid are {', '.join(ROLES)}")
        messages.append({"role": ROLES[role], "content": content})
    if not messages:
        raise ValueError(f"source: row {number} of {path} has no messages, conversations, or instruction and output")
    return messages


def _turns(row: Any) -> list[tuple[Any, Any]]:
    """Who says what in a row; nothing where it has none of the known forms."""
    if not isinstance(row, dict):
        return []
    for turns, role, content in LISTS:
        if isinstance(row.get(turns), list):
            return [(turn.get(role), turn.get(content)) for turn in row[turns] if isinstance(turn, dict)]
    for asked, answered in PAIRS:
        if asked in row and answered in row:
            return [("user", row[asked]), (ASSISTANT, row[answered])]
    return []

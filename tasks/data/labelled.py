"""A text to learn from: its tokens, and which of them are learned; of a conversation, only what the assistant says.

Axes: T tokens of all documents, one after the other.
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.data.chat import encode_chat, is_conversation, read_chat
from tasks.data.documents import count_bytes, hash_texts
from tasks.data.sources import Source, check_source, parse_source, read
from tasks.data.tokens import encode

ROLE = "calibration"  # the part of a registered source that is learned from


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Token ids, and the label of each (tasks.data.mixture); `labels_T` is None where all are learned."""

    source: str
    ids_T: Tensor
    labels_T: Tensor | None
    documents: int
    text_bytes: int
    hash: str  # of the texts alone

    @property
    def learned(self) -> int:
        """How many of the tokens are learned; the others are only read."""
        return self.ids_T.numel() if self.labels_T is None else int((self.labels_T >= 0).sum())


def read_labelled(text: str, tokenizer: PreTrainedTokenizerBase) -> Labelled:
    """The tokens of a source. ValueError and ConnectionError as tasks.data.sources and tasks.data.chat raise them."""
    source = parse_source(text)
    if holds_chat(source):
        conversations = read_chat(Path(source.name), source.start, source.stop)
        ids_T, labels_T = encode_chat(conversations, tokenizer)
        texts = [json.dumps(conversation, sort_keys=True) for conversation in conversations]
        return Labelled(
            source=str(source),
            ids_T=ids_T,
            labels_T=labels_T,
            documents=len(conversations),
            text_bytes=sum(len(said["content"].encode()) for conversation in conversations for said in conversation),
            hash=hash_texts(texts),
        )
    documents = read(text, ROLE)
    return Labelled(
        source=str(source),
        ids_T=encode(documents.texts, tokenizer),
        labels_T=None,
        documents=len(documents.texts),
        text_bytes=count_bytes(documents.texts),
        hash=documents.hash,
    )


def check_labelled(text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """What can be known of a text before it is read. ValueError as `check_source`; for a chat without a template."""
    source = check_source(text, ROLE)
    if holds_chat(source) and not tokenizer.chat_template:
        raise ValueError(f"source: {source} holds conversations, but the model's tokenizer has no chat template")


def holds_chat(source: Source) -> bool:
    """Whether a .jsonl file holds conversations: so its first row says, which has no `text`."""
    if not (source.is_file and Path(source.name).suffix == ".jsonl"):
        return False
    with Path(source.name).open("rb") as lines:
        for line in islice(filter(bytes.strip, lines), 1):
            try:
                row = json.loads(line.decode())
            except ValueError:
                return False
            return is_conversation(row)
    return False

"""A text to learn from: of documents every token, of conversations what the assistant says."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tasks.data.labelled import check_labelled, read_labelled
from tasks.data.sources import read
from tasks.data.tokens import encode
from tasks.model.load import BUILTIN

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ASKED, SAID = "What is 2:4?", "Two of four are kept."
MESSAGES = {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]}


@pytest.fixture
def tokenizer():
    made = AutoTokenizer.from_pretrained(BUILTIN)
    made.chat_template = TEMPLATE
    return made


def written(folder: Path, *rows: dict, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_of_documents_every_token_is_learned(tokenizer, tmp_path):
    place = written(tmp_path, {"text": SAID}, {"text": ASKED, "messages": "beside"})
    text = read_labelled(place, tokenizer)
    assert text.ids_T.tolist() == encode([SAID, ASKED], tokenizer).tolist()
    assert (text.labels_T, text.learned, text.documents) == (None, text.ids_T.numel(), 2)
    assert text.hash == read(place, "calibration").hash


@pytest.mark.parametrize("row", [MESSAGES, {"instruction": ASKED, "output": SAID}])
def test_of_conversations_what_the_assistant_says_is_learned(tokenizer, tmp_path, row):
    place = written(tmp_path, row, MESSAGES, row)
    text = read_labelled(f"{place}[1:]", tokenizer)
    learned = text.labels_T >= 0
    assert tokenizer.decode(text.ids_T[learned]) == f"{SAID}\n{SAID}\n"
    assert text.labels_T[learned].tolist() == text.ids_T[learned].tolist()
    assert text.learned == int(learned.sum()) < text.ids_T.numel()
    assert (text.documents, text.text_bytes) == (2, 2 * len((ASKED + SAID).encode()))
    assert text.hash == read_labelled(f"{place}[:2]", tokenizer).hash != read_labelled(place, tokenizer).hash


def test_conversations_without_a_template_are_refused_before_they_are_read(tokenizer, tmp_path):
    place = written(tmp_path, MESSAGES)
    check_labelled(place, tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"^source: .*rows.jsonl holds conversations, but .* no chat template$"):
        check_labelled(place, tokenizer)
    check_labelled(written(tmp_path, {"text": SAID}, name="plain.jsonl"), tokenizer)
    check_labelled("docs", tokenizer)


def test_a_file_of_neither_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"row 0 of .* has no string under 'text'"):
        read_labelled(written(tmp_path, {"body": SAID}), tokenizer)

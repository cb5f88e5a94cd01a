"""Chat data: what is learned decodes to what the assistant says, in the real tokenizers, whatever the template does."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tasks.data.chat import encode_chat, read_chat
from tasks.data.mixture import Part, mix
from tasks.model.load import BUILTIN

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
PLAIN = TURNS + ASK
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}|"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}</{{ m.role }}>\n{% endfor %}" + ASK
)
FORGETFUL = (  # as templates that drop the reasoning of earlier turns
    "{% for m in messages %}<{{ m.role }}>{{ m.content if loop.last or m.role == 'user' else '…' }}\n{% endfor %}" + ASK
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2:4?"},
    {"role": "assistant", "content": "Two of four  are kept.\nThe others are zero."},
    {"role": "user", "content": "Née où? <assistant>no</assistant> 日本"},
    {"role": "assistant", "content": "À Zürich — 東京 🙂"},
]


def tokenizer_with(template: str | None, folder: Path = BUILTIN) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    return tokenizer


def spoken(ids_T: torch.Tensor, labels_T: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Every unbroken row of learned tokens as text."""
    texts, run = [], []
    for token, label in [*zip(ids_T.tolist(), labels_T.tolist(), strict=True), (0, -100)]:
        assert label in (token, -100)
        if label >= 0:
            run.append(token)
        elif run:
            texts.append(tokenizer.decode(run))
            run = []
    return texts


@pytest.mark.parametrize(("template", "end"), [(PLAIN, "</assistant>\n"), (MARKED, "|")])
def test_what_is_learned_decodes_to_what_the_assistant_says(template, end):
    tokenizer = tokenizer_with(template)
    ids_T, labels_T = encode_chat([TALK, TALK[1:3]], tokenizer)
    said = [TALK[2]["content"] + end, TALK[4]["content"] + end, TALK[2]["content"] + end]
    assert spoken(ids_T, labels_T, tokenizer) == said
    rendered = "".join(tokenizer.apply_chat_template(talk, tokenize=False) for talk in (TALK, TALK[1:3]))
    assert tokenizer.decode(ids_T) == rendered


def test_only_tokens_wholly_within_the_turn_are_learned():
    """Without a border between prompt and answer some token may hold the end of one and the beginning of the other."""
    tokenizer = tokenizer_with("{% for m in messages %}{{ m.content }}{% endfor %}")
    talk = [{"role": "user", "content": "the mod"}, {"role": "assistant", "content": "el keeps"}]
    assert "model" in tokenizer.decode(tokenizer("the model keeps")["input_ids"][2])
    ids_T, labels_T = encode_chat([talk], tokenizer)
    assert spoken(ids_T, labels_T, tokenizer) == [" keeps"]


@pytest.mark.parametrize("border", [" ", "\n", ""])
@pytest.mark.parametrize("name", ["stories260K", "stories3M"])
def test_a_first_word_that_holds_the_space_before_it_is_learned(shared, name, border):
    template = PLAIN.replace("<{{ m.role }}>", "<{{ m.role }}>" + border).replace("<assistant>", "<assistant>" + border)
    tokenizer = tokenizer_with(template, shared / "models" / name)
    talk = [{"role": "user", "content": "Who is Lily?"}, {"role": "assistant", "content": "Lily is a girl."}]
    ids_T, labels_T = encode_chat([talk], tokenizer)
    assert [text.strip() for text in spoken(ids_T, labels_T, tokenizer)] == ["Lily is a girl.</assistant>"]


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_it_marks_what_is_said():
    with pytest.raises(ValueError, match=r"^conversation 1: the template renders turn 2 otherwise once more follows"):
        encode_chat([TALK[1:3], TALK], tokenizer_with(FORGETFUL))


@pytest.mark.parametrize("name", ["stories260K", "stories3M"])
def test_in_other_tokenizers_too(shared, name):
    tokenizer = tokenizer_with(PLAIN, shared / "models" / name)
    ids_T, labels_T = encode_chat([TALK], tokenizer)
    said = [text.replace(" ", "") for text in spoken(ids_T, labels_T, tokenizer)]
    assert said == [(TALK[turn]["content"] + "</assistant>\n").replace(" ", "") for turn in (2, 4)]


@pytest.mark.parametrize(
    ("name", "asked", "answered"),
    [
        ("dolly_sample.jsonl", "prompt", "answer"),
        ("alpacaeval_openhermes_outputs.json", "instruction", "output"),
        ("gsm8k_test.jsonl", "question", "answer"),
    ],
)
def test_real_conversations_are_read_encoded_and_packed(shared, name, asked, answered):
    path = shared / "prompts" / name
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    conversations, tokenizer = read_chat(path, 2, 22), tokenizer_with(PLAIN)
    assert [[turn["content"] for turn in talk] for talk in conversations] == [
        [row[asked], row[answered]] for row in rows[2:22]
    ]
    ids_T, labels_T = encode_chat(conversations, tokenizer)
    assert spoken(ids_T, labels_T, tokenizer) == [row[answered] + "</assistant>\n" for row in rows[2:22]]
    mixed = mix([Part(source="chat", ids_T=ids_T, labels_T=labels_T)], window=32, tokens=640)
    assert ((mixed.labels_NW == mixed.ids_NW) | (mixed.labels_NW == -100)).all()


def test_the_usual_forms_of_a_row_are_one_conversation(tmp_path):
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So.\u2028Or so."}]
    rows = [
        {"messages": talk, "id": 1},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": talk[1]["content"]}]},
        {"instruction": "Why?", "response": talk[1]["content"]},
    ]
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    assert read_chat(path) == [talk] * 3
    assert read_chat(path, 1, 2) == [talk]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"messages": []}', "row 0 of .* has no messages, conversations, or instruction and output"),
        ('{"text": "alone"}', "row 0 of .* has no messages"),
        ("[1]", "row 0 of .* has no messages"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "row 0 of .* has a turn of 'tool', valid are"),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', r"row 0 of .* has a turn of .'user'., valid are"),
        ('{"question": "x", "answer": 4}', "row 0 of .* has a turn of 'assistant'"),
        ("{", "is not JSON in UTF-8"),
    ],
)
def test_rows_that_are_no_conversation_get_one_line(tmp_path, content, complaint):
    path = tmp_path / "talk.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^source: .*{complaint}"):
        read_chat(path)


def test_what_cannot_be_learned_from_gets_one_line(tmp_path):
    tokenizer = tokenizer_with(PLAIN)
    with pytest.raises(ValueError, match=r"^conversation 1: the assistant says nothing in it"):
        encode_chat([TALK, TALK[:2]], tokenizer)
    with pytest.raises(ValueError, match=r"^conversation 0: the assistant speaks first"):
        encode_chat([TALK[2:]], tokenizer)
    with pytest.raises(ValueError, match=r"^conversations: none given"):
        encode_chat([], tokenizer)
    with pytest.raises(ValueError, match=r"^tokenizer: it has no chat template"):
        encode_chat([TALK], tokenizer_with(None))
    with pytest.raises(ValueError, match=r"^source: .*talk.txt given, valid for conversations is .json or .jsonl"):
        read_chat(tmp_path / "talk.txt")

"""From a chat to a prompt, with and without a template of the tokenizer's own."""

import pytest

from tasks.model.load import BUILTIN, load_tokenizer
from tasks.train_controller.service.chat import ChatTemplate
from tasks.train_controller.service.refusal import Refused

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = [
    {"role": "user", "content": "What is a tree?"},
    {"role": "assistant", "content": " A plant. "},
    {"role": "user", "content": "And a frame?"},
]


def test_without_a_template_speakers_stand_before_what_they_say():
    template = ChatTemplate(load_tokenizer(BUILTIN))
    expected = "User: What is a tree?\n\nAssistant: A plant.\n\nUser: And a frame?\n\nAssistant:"
    assert (template.render(CHAT), template.stop) == (expected, ("\nUser:",))


def test_a_template_gives_the_ids_of_its_text_and_no_more():
    tokenizer = load_tokenizer(BUILTIN)
    tokenizer.chat_template = TEMPLATE
    template = ChatTemplate(tokenizer)
    ids = template.render(CHAT)
    text = "<|doc|>[user] What is a tree?\n[assistant]  A plant. \n[user] And a frame?\n[assistant]"
    assert tokenizer.decode(ids) == text
    assert list(ids).count(tokenizer.bos_token_id) == 1
    assert template.stop == ()


@pytest.mark.parametrize("template", [None, TEMPLATE])
@pytest.mark.parametrize(
    "content", ["caf\udce9", [{"type": "text", "text": "caf"}, {"type": "text", "text": "\udce9"}]]
)
def test_half_a_character_is_refused_with_its_place(template: str | None, content: str | list):
    tokenizer = load_tokenizer(BUILTIN)
    tokenizer.chat_template = template
    with pytest.raises(Refused, match=r"messages\[3\]\.content: a lone surrogate given") as refused:
        ChatTemplate(tokenizer).render([*CHAT, {"role": "user", "content": content}])
    assert (refused.value.status, refused.value.field) == (400, "messages[3].content")


def test_what_a_template_refuses_is_the_client_s_mistake():
    tokenizer = load_tokenizer(BUILTIN)
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(Refused, match="no system here") as refused:
        ChatTemplate(tokenizer).render([{"role": "system", "content": "Be brief."}, *CHAT])
    assert (refused.value.status, refused.value.field) == (400, "messages")

"""Actions as data and as words."""

import pytest

from tasks.prune.cache.key_norm import KeyNorm
from tasks.prune.cache.snapkv import SnapKV
from tasks.prune.cache.window import SlidingWindow
from tasks.train_controller.act.actions import Action, parse_action, parse_actions

WORDS = {
    "none": Action(),
    "ffn20": Action(profile="ffn20"),
    "none@window:0.5": Action(budget=SlidingWindow(ratio=0.5)),
    "ffn20@snapkv:0.25,window=16": Action(profile="ffn20", budget=SnapKV(ratio=0.25, window=16)),
}


@pytest.mark.parametrize("text", WORDS)
def test_an_action_is_read_from_its_words_and_says_them(text):
    assert parse_action(text) == WORDS[text]
    assert str(WORDS[text]) == text


def test_a_budget_alone_is_of_the_model_as_it_is():
    assert parse_action("none@key_norm:0.5") == Action(budget=KeyNorm(ratio=0.5))
    for empty in ("", " ", "@key_norm:0.5"):
        with pytest.raises(ValueError, match=r"^actions: .* given, valid is none or a profile"):
            parse_action(empty)


def test_none_is_first_named_or_not():
    assert parse_actions(["ffn20"], ["ffn20", "heads10"]) == (Action(), Action(profile="ffn20"))
    assert parse_actions([], []) == parse_actions(["none"], []) == (Action(),)
    assert [str(each) for each in parse_actions(["ffn20", "none", "none@window:0.5"], ["ffn20"])] == [
        "none",
        "ffn20",
        "none@window:0.5",
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["ffn30"], r"actions: 'ffn30' given, valid profiles are none, ffn20"),
        (["ffn20@h2o:0.5"], r"actions: 'h2o:0.5' given, valid is window:0.5, "),
        (["ffn20@"], r"actions: '' given, valid is window:0.5, "),
        (["ffn20", "ffn20"], r"actions: 'ffn20' given twice"),
        (["ffn20@snapkv:0.5", "ffn20@snapkv:.50,pool=7"], r"actions: 'ffn20@snapkv:.50,pool=7' given twice"),
    ],
)
def test_what_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_actions(texts, ["ffn20"])

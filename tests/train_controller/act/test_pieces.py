"""Text while it is written: whole characters, nothing of a stop string, and joined what the tokens say."""

import random

import pytest

from tasks.model.load import BUILTIN, load_tokenizer
from tasks.train_controller.act.pieces import BROKEN, Pieces

TEXTS = ("plain words, and more of them", "na\u00efve caf\u00e9: 日本語 🙂🙃 Ω≈ç", "a\n\n  b\tc …—“quoted”")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(BUILTIN)


def feed(pieces, ids):
    """The pieces as they come, until they stop."""
    given = []
    for token in ids:
        given.append(pieces.add(token))
        if pieces.stopped:
            break
    return [*given, pieces.rest()]


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_waits_until_it_is_whole(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = Pieces(tokenizer, [5, 6, 7])
    given = feed(pieces, ids)
    assert "".join(given) == pieces.text == text
    assert not any(BROKEN in piece for piece in given)
    if "日" in text:
        assert "" in given[:-1]  # some token brought a part of a character


def test_a_character_that_stays_broken_comes_last(tokenizer):
    ids = tokenizer("so 🙂", add_special_tokens=False)["input_ids"]
    pieces = Pieces(tokenizer, [])
    given = feed(pieces, ids[:-1])
    assert given[-1].endswith(BROKEN)
    assert "".join(given) == pieces.text == tokenizer.decode(ids[:-1])


@pytest.mark.parametrize("seed", range(50))
def test_all_pieces_are_the_text_of_all_tokens(tokenizer, seed):
    chance = random.Random(seed)
    bytes_only = sorted(id for token, id in tokenizer.get_vocab().items() if len(token) == 1)
    for pool in (range(1, len(tokenizer)), bytes_only):  # of all tokens; of bytes, which seldom make characters
        ids = chance.choices(pool, k=60)
        pieces = Pieces(tokenizer, chance.choices(pool, k=9))
        assert "".join(feed(pieces, ids)) == pieces.text == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_character_that_the_prompt_left_broken_is_not_completed_by_the_answer(tokenizer):
    lead, *others = tokenizer("🙂", add_special_tokens=False)["input_ids"]
    for prompt in ([lead], tokenizer("so ", add_special_tokens=False)["input_ids"] + [lead]):
        pieces = Pieces(tokenizer, prompt)
        assert "".join(feed(pieces, [*others, *others])) == tokenizer.decode([*others, *others])


@pytest.mark.parametrize("seed", range(5))
def test_what_comes_is_the_text_before_the_first_stop_string(tokenizer, seed):
    chance = random.Random(seed)
    for _ in range(40):
        text = "".join(chance.choices("ab c\n🙂é", k=30))
        stop = ["".join(chance.choices("ab c\n🙂é", k=chance.randint(1, 4))) for _ in range(chance.randint(1, 3))]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = Pieces(tokenizer, [], stop=stop)
        given = feed(pieces, ids)
        expected = min((text.split(each)[0] for each in stop), key=len)
        assert "".join(given) == pieces.text == expected
        assert pieces.stopped == (expected != text)


def test_what_may_begin_a_stop_string_waits_and_then_comes(tokenizer):
    ids = {letter: tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in "xEND!"}
    one = {letter: each[0] for letter, each in ids.items() if len(each) == 1}
    pieces = Pieces(tokenizer, [], stop="END")
    assert [pieces.add(one[letter]) for letter in "xEN!ENEND"] == ["x", "", "", "EN!", "", "", "EN", "", ""]
    assert (pieces.text, pieces.stopped, pieces.rest()) == ("xEN!EN", True, "")


def test_a_stop_token_ends_the_text_and_is_not_in_it(tokenizer):
    ids = tokenizer("a EN", add_special_tokens=False)["input_ids"]
    for end in (0, ids[0]):  # a special token, and one that is text elsewhere
        pieces = Pieces(tokenizer, ids, stop=["END"], stop_ids=[end])
        assert "".join(feed(pieces, [*ids[1:], end, *ids])) == pieces.text == " EN"
        assert pieces.stopped
    pieces = Pieces(tokenizer, ids)
    assert "".join(feed(pieces, [*ids[1:], 0, *ids])) == " ENa EN"
    assert not pieces.stopped


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^stop: '' given, valid is "):
        Pieces(tokenizer, [], stop=["END", ""])

"""The texts of a recovery in words, and back."""

import pytest

from tasks.recover.texts import WeightedText, check_texts, parse_texts


def text(source: str, weight: float = 1.0) -> WeightedText:
    return WeightedText(source=source, weight=weight)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ("docs", (text("docs"),)),
        ("a.jsonl=2+b.jsonl=1", (text("a.jsonl", 2.0), text("b.jsonl"))),
        ("a.txt[3:]=0.25+docs:train+c4=.5", (text("a.txt[3:]", 0.25), text("docs:train"), text("c4", 0.5))),
        ("key=value.txt", (text("key=value.txt"),)),
        ("a.txt=1e-3", (text("a.txt", 1e-3),)),
    ],
)
def test_words_become_texts_and_texts_words(words, texts):
    assert parse_texts(words) == texts
    assert parse_texts("+".join(map(str, texts))) == texts


@pytest.mark.parametrize("weight", ["0", "-1", "0.0"])
def test_a_weight_is_more_than_nothing(weight):
    with pytest.raises(ValueError, match=r"^weight: .* given for a\.txt, valid is more than 0$"):
        parse_texts(f"a.txt={weight}")


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ((text("a"), text("b"), text("a", 2.0)), "text: a given 2 times"),
        ((text("a", 2.0),), "text: a=2.0 given alone"),
        ((text("c++.txt"),), "text: c++.txt given"),
    ],
)
def test_texts_that_cannot_be_meant_get_one_line(texts, complaint):
    with pytest.raises(ValueError, match=r"^text: ") as caught:
        check_texts(texts)
    assert str(caught.value).startswith(complaint)
    check_texts((text("a"), text("b", 2.0)))

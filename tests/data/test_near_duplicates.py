"""Near duplicates: every pair that the definition joins is connected, and no other; held against all pairs compared."""

import random
import string

import pytest

from tasks.data.near_duplicates import START, near_duplicates, normalise

WORDS = ["".join(random.Random(seed).choices(string.ascii_lowercase, k=4 + seed % 5)) for seed in range(400)]


def connected(texts):
    """The groups of indices that the pairs join, each a frozenset."""
    group_of = {index: {index} for index in range(len(texts))}
    for one, other in near_duplicates(texts):
        joined = group_of[one] | group_of[other]
        for index in joined:
            group_of[index] = joined
    return {frozenset(group) for group in group_of.values()}


def by_comparing_all(texts):
    """The same groups from the definition alone: every pair of texts, with Python's own sets."""
    normal = [normalise(text) for text in texts]
    shingles = [{text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in normal]
    groups = [{index} for index in range(len(texts))]
    for one in range(len(texts)):
        for other in range(one):
            alike = 4 * len(shingles[one] & shingles[other]) >= 3 * len(shingles[one] | shingles[other])
            if alike or normal[one].split()[:START] == normal[other].split()[:START]:
                joined = next(g for g in groups if one in g) | next(g for g in groups if other in g)
                groups = [g for g in groups if not g & joined] + [joined]
    return {frozenset(group) for group in groups}


def edited(text, draw, changes):
    words = text.split()
    for _ in range(changes):
        words[draw.randrange(len(words))] = draw.choice(WORDS)
    return " ".join(words)


@pytest.mark.parametrize("seed", range(4))
def test_the_groups_are_those_of_all_pairs_compared(seed):
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.choice((1, 3, 8, 20, 60)))) for _ in range(60)]
    texts += [edited(draw.choice(texts), draw, draw.randrange(6)) for _ in range(90)]
    draw.shuffle(texts)
    expected = by_comparing_all(texts)
    assert connected(texts) == expected
    assert 20 < len(expected) < 140


def test_case_punctuation_and_white_space_do_not_matter():
    assert normalise("  It's\tONE,\nﬁne — day!") == "it s one fine day"
    assert connected(["Tell me a story!", "  tell ME\na (story)", "Tell me a joke"]) == {
        frozenset({0, 1}),
        frozenset({2}),
    }


def test_texts_without_words_are_told_apart():
    assert normalise(" +++ ") == "+++"
    assert connected(["+++", "---", "", " +++"]) == {frozenset({0, 3}), frozenset({1}), frozenset({2})}


def test_what_begins_with_the_same_words_is_alike_however_it_goes_on():
    draw = random.Random(0)
    start, ends = " ".join(draw.sample(WORDS, START)), [" ".join(draw.sample(WORDS, 80)) for _ in range(2)]
    shorter = " ".join(start.split()[:-1])
    texts = [f"{start} {ends[0]}", f"{start} {ends[1]}", f"{shorter} other {ends[1][:40]}"]
    assert connected(texts) == {frozenset({0, 1}), frozenset({2})}


def test_of_nothing_there_are_no_pairs():
    assert list(near_duplicates([])) == []

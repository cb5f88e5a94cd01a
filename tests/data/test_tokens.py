"""Tokens: documents packed one after the other, windows drawn once each, mistakes said in one line."""

import pytest
import torch
from transformers import AutoTokenizer

from tasks.data.tokens import check_vocabulary, cut, encode, encode_with_bytes, sample_windows, scored_bytes
from tests.data.tokenizers import single_bytes, whole_words


class Letters:
    """A tokenizer of single letters that begins every document with 0."""

    def __call__(self, documents, verbose):
        return {"input_ids": [[0] + [ord(letter) - 96 for letter in document] for document in documents]}


def test_documents_are_encoded_on_their_own_and_packed():
    ids_T = encode(["ab", "c"] * 300, Letters())
    assert ids_T.dtype == torch.int64
    assert ids_T[:10].tolist() == [0, 1, 2, 0, 3, 0, 1, 2, 0, 3]
    assert len(ids_T) == 1500
    assert len(encode([], Letters())) == 0


@pytest.mark.parametrize(
    ("tokenizer", "documents", "each"),
    [
        (whole_words("tree", "été"), ["tree  été tree ", "été"], [4, 7, 6, 5]),  # with the space before, or at the end
        (single_bytes(), ["aé", "木b𝄞"], [1, 2, 0, 3, 0, 0, 1, 4, 0, 0, 0]),
        (Letters(), ["ab", "éé"], [2 / 3] * 3 + [4 / 3] * 3),  # a slow one
    ],
)
def test_the_bytes_of_each_token(tokenizer, documents, each):
    ids_T, bytes_T = encode_with_bytes(documents, tokenizer)
    assert torch.equal(ids_T, encode(documents, tokenizer))
    assert bytes_T.tolist() == pytest.approx(each)
    assert bytes_T.sum().item() == pytest.approx(sum(len(document.encode()) for document in documents))


def test_a_special_token_stands_for_nothing(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories3M")
    text = "Once upon a time, a naïve 木 grew.\n"
    ids_T, bytes_T = encode_with_bytes([text], tokenizer)
    assert (ids_T[0], bytes_T[0]) == (tokenizer.bos_token_id, 0)
    assert bytes_T.sum() == len(text.encode())


def test_the_bytes_that_are_scored_are_of_whole_windows_without_their_first_token():
    assert scored_bytes(torch.tensor([1.0, 2, 4, 8, 16, 32, 64, 128]), 3) == 2 + 4 + 16 + 32


def test_windows_do_not_overlap_and_the_tail_is_dropped():
    assert cut(torch.arange(10), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_windows_are_drawn_once_each_by_the_seed():
    ids_T = torch.arange(1003)
    drawn_NW = sample_windows(ids_T, 10, 60, seed=3)
    assert drawn_NW.shape == (60, 10)
    starts = drawn_NW[:, 0]
    assert len(starts.unique()) == 60
    assert not (starts % 10).any()
    assert torch.equal(drawn_NW, starts[:, None] + torch.arange(10))
    assert torch.equal(drawn_NW, sample_windows(ids_T, 10, 60, seed=3))
    assert not torch.equal(drawn_NW, sample_windows(ids_T, 10, 60, seed=4))
    assert len(sample_windows(ids_T, 10, 100, seed=0)[:, 0].unique()) == 100


def test_the_first_windows():
    assert torch.equal(sample_windows(torch.arange(100), 10, 3, 0, "first").flatten(), torch.arange(30))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: cut(torch.arange(100), 256), "window: text has 100 tokens, fewer than one window of 256"),
        (lambda: cut(torch.arange(100), 0), "window: 0 given"),
        (lambda: sample_windows(torch.arange(100), 10, 11, 0), "samples: 11 asked for; the text has 10 windows of 10"),
        (lambda: sample_windows(torch.arange(100), 10, 0, 0), "samples: 0 asked for"),
        (
            lambda: sample_windows(torch.arange(100), 10, 2, 0, "last"),
            "sampling: 'last' is unknown; choose random or first",
        ),
        (lambda: check_vocabulary(torch.tensor([1, 50]), 50), "tokenizer: its ids go from 1 to 50; .* has 50 entries"),
        (lambda: check_vocabulary(torch.tensor([-1, 5]), 50), "tokenizer: its ids go from -1 to 5"),
    ],
)
def test_mistakes_get_one_line(call, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}"):
        call()


def test_ids_inside_the_vocabulary_pass():
    check_vocabulary(torch.tensor([0, 49]), 50)

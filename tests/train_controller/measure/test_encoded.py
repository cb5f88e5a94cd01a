"""Prompts as ids: what follows a text is encoded as that, what is stored comes back, what cannot be used is refused."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tasks.train_controller.measure.encoded import check_prompts, encode_prompt, load_prompts, of_split, save_prompts
from tasks.train_controller.measure.episodes import EncodedPrompt

VOCABULARY = {word: index for index, word in enumerate(["<s>", "<unk>", "a", "tree", "grows", "grow", "s"])}
FACTS = {"prompt": "0" * 16, "source": "docs", "split": "train", "tokens": 3}


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Of whole words, each text behind a <s>."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>")


def prompts(number: int, test: int, length: int = 5):
    ids = torch.arange(length)[None]
    return [
        EncodedPrompt(
            prompt=f"{index:016x}",
            source="docs",
            split="test" if index < test else "train",
            ids_1T=ids + index,
            reference_1R=torch.tensor([[index, 7]]),
        )
        for index in range(number)
    ]


def test_a_prompt_begins_as_the_tokenizer_has_it_and_its_reference_does_not(tokenizer):
    made = encode_prompt(tokenizer, "a tree", " grows a tree tree", **FACTS)
    assert made.ids_1T.tolist() == [[0, 2, 3]]
    assert made.reference_1R.tolist() == [[4, 2, 3]]  # the first three
    assert (made.prompt, made.source, made.split) == ("0" * 16, "docs", "train")


def test_a_reference_that_would_change_the_text_is_encoded_alone(tokenizer):
    made = encode_prompt(tokenizer, "a tree grow", "s a", **FACTS)
    assert made.ids_1T.tolist() == [[0, 2, 3, 5]]
    assert made.reference_1R.tolist() == [[6, 2]]


def test_what_is_stored_comes_back(tmp_path):
    given = [*prompts(3, 1), *prompts(1, 0, length=9)]
    save_prompts(tmp_path, given)
    read = load_prompts(tmp_path)
    assert [(each.prompt, each.source, each.split) for each in read] == [
        (each.prompt, each.source, each.split) for each in given
    ]
    for one, other in zip(read, given, strict=True):
        assert torch.equal(one.ids_1T, other.ids_1T)
        assert torch.equal(one.reference_1R, other.reference_1R)
    assert [each.prompt for each in of_split(read, "test")] == [given[0].prompt]


def test_too_few_too_long_and_empty_ones_are_refused():
    check_prompts(prompts(12, 2), 9, tokens=4)
    check_prompts(prompts(12, 2), None, tokens=4000)
    with pytest.raises(ValueError, match="prompts: 12 given, of which 1 to test, valid is 2 or more"):
        check_prompts(prompts(12, 1), 9, tokens=4)
    with pytest.raises(ValueError, match="prompts: 9 given, of which 7 to train, valid is 8 or more"):
        check_prompts(prompts(9, 2), 9, tokens=4)
    with pytest.raises(ValueError, match="prompts: 12 of 12 given are longer than 4 tokens, the longest has 5;"):
        check_prompts(prompts(12, 2), 8, tokens=4)
    [first, *others] = prompts(12, 2)
    empty = replace(first, reference_1R=torch.empty(1, 0).long())
    with pytest.raises(ValueError, match="prompts: 1 without a token, or with a reference of fewer than 2"):
        check_prompts([empty, *others], 9, tokens=4)

"""Prompts that ask for what they said long ago, and what each budget remembers of it."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.data.docstrings import docstrings
from tasks.model.load import BUILTIN, load_model, load_tokenizer
from tasks.prune.cache.methods import parse_budget
from tasks.prune.cache.recall import recall_loss, recall_of
from tasks.prune.cache.snapkv import SnapKV
from tasks.prune.cache.window import SlidingWindow
from tests.cases import batches, llama

IDS = torch.arange(100)  # each position of the text is another word


def test_a_prompt_is_a_passage_other_text_and_the_beginning_of_the_passage():
    recall = recall_of(IDS, prompts=50, passage=10, cue=3, between=40, seed=0)
    assert recall.prompt_BT.shape == (50, 10 + 40 + 3)
    assert recall.remainder_BR.shape == (50, 7)
    for prompt, remainder in zip(recall.prompt_BT, recall.remainder_BR, strict=True):
        passage, other, cue = prompt.split([10, 40, 3])
        assert (passage.diff() == 1).all()
        assert torch.equal(torch.cat([cue, remainder]), passage)
        assert not set(other.tolist()) & set(passage.tolist())
        assert (other.diff() == 1).sum() >= 38  # a piece of text, with the passage cut out of it at most
    assert len(set(recall.prompt_BT[:, 0].tolist())) > 20


def test_a_seed_gives_the_same_prompts_and_another_gives_others():
    drawn = [recall_of(IDS, prompts=4, passage=10, cue=3, between=40, seed=seed).prompt_BT for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_shortest_text_is_enough():
    assert recall_of(IDS[:50], prompts=3, passage=10, cue=3, between=40).prompt_BT.shape == (3, 53)


@pytest.mark.parametrize(("how", "message"), [
    ({"cue": 0}, "cue: 0 given, valid is 1 to 9"),
    ({"cue": 10}, "cue: 10 given, valid is 1 to 9"),
    ({"between": 91}, "ids: 100 tokens given, valid is 101 or more"),
])  # fmt: skip
def test_what_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        recall_of(IDS, **({"passage": 10, "cue": 3, "between": 40} | how))


def test_the_loss_of_a_whole_cache_is_that_of_one_forward():
    model = llama()
    recall = recall_of(batches((1, 60))[0][0], prompts=3, passage=8, cue=2, between=16)
    whole_BT = torch.cat([recall.prompt_BT, recall.remainder_BR], dim=1)
    with torch.no_grad():
        logits_BRV = model(whole_BT).logits[:, -7:-1].double()
    expected = -logits_BRV.log_softmax(-1).gather(2, whole_BT[:, -6:, None]).mean().item()
    assert recall_loss(model, recall) == pytest.approx(expected, abs=1e-5)
    assert recall_loss(model, recall, SlidingWindow(ratio=1)) == recall_loss(model, recall)


def test_forgetting_the_passage_raises_the_loss_and_what_attends_to_it_remembers():
    """The built-in model copies what it sees again; a window of the latest tokens is as if it had never read it."""
    model, tokenizer = load_model(BUILTIN), load_tokenizer(BUILTIN)
    texts = [tokenizer(text)["input_ids"] for text in docstrings(Path(statistics.__file__))]
    recall = recall_of(torch.tensor([token for text in texts for token in text]), prompts=8)
    never_BT = recall.prompt_BT.clone()
    never_BT[:, :32] = never_BT[:, :32].roll(1, dims=0)  # the passage of another prompt
    never = recall_loss(model, replace(recall, prompt_BT=never_BT))
    whole = recall_loss(model, recall)
    window, key_norm = (recall_loss(model, recall, parse_budget(text)) for text in ("window:0.5", "key_norm:0.5"))
    snapkv = recall_loss(model, recall, SnapKV(ratio=0.5, window=8))
    assert never > whole + 1
    assert abs(window - never) < 0.25 * (never - whole)
    assert whole < snapkv < window - 0.25 * (never - whole)
    assert whole < key_norm < window

import json
from dataclasses import replace

import pytest
import torch

from tasks.train_controller.learn.table import table_of
from tasks.train_controller.observation import FEATURES, HARDWARE_FEATURES
from tasks.train_controller.rows import EpisodeRow, PromptRow
from tests.train_controller.made_up import a_table

FEW = PromptRow(prompt="a", source="docs", split="train", tokens=3, reference_tokens=2, features="", ppl=4.0)
NOTHING = dict.fromkeys(("nll", "dense_nll", "rise", "kl", "prefill_ms", "switch_ms", "decode_ms", "tokens_per_s"), 0.0)


def prompt(name, split="train"):
    features = {feature: (number + len(name)) / 100 for number, feature in enumerate(FEATURES)}
    return replace(FEW, prompt=name, split=split, features=json.dumps(features))


def episode(name, action, ratio=1.0, rise=0.0):
    row = EpisodeRow(
        prompt=name, action=action, **NOTHING, ratio=ratio, cache_bytes=0, memory_bytes=0, state=json.dumps({})
    )
    return replace(row, rise=rise)


def test_a_split_is_its_prompts_with_all_actions_in_whatever_order_they_were_measured():
    prompts = [prompt("a"), prompt("bb", "test"), prompt("ccc")]
    episodes = [
        episode("bb", "only-there"),
        episode("bb", "none"),
        episode("ccc", "ffn", 1.3, 0.2),
        episode("a", "ffn", 1.2, 0.1),
        episode("a", "none"),
        episode("ccc", "none"),
    ]
    table = table_of(prompts, episodes, "train")
    assert (table.actions, table.prompts, table.sources) == (("none", "ffn"), ("a", "ccc"), ("docs", "docs"))
    assert table.ratio_PA.tolist() == [[1, 1.2], [1, 1.3]]
    assert table.rise_PA.tolist() == [[0, 0.1], [0, 0.2]]
    assert table.state_PF[:, :2].tolist() == [[0.01, 0.02], [0.03, 0.04]]
    assert table_of(prompts, episodes, "test").actions == ("none", "only-there")


@pytest.mark.parametrize(
    ("prompts", "episodes", "split", "says"),
    [
        ([prompt("a")], [episode("a", "none")], "test", "split: 'test' given, valid is train"),
        ([], [], "train", "split: 'train' given, valid is none: there are no prompts"),
        ([prompt("a")], [episode("a", "ffn")], "train", "episodes: 'none' not given for prompt a"),
        ([prompt("a")], [episode("a", "none")] * 2, "train", "episodes: 'none' given twice for prompt a"),
        ([replace(prompt("a"), features="{}")], [episode("a", "none")], "train", "features: prompt a has no cpu_use"),
    ],
)
def test_what_is_not_whole_is_refused(prompts, episodes, split, says):
    # Two equal rows are still two: each is an object of its own.
    with pytest.raises(ValueError, match=says) as error:
        table_of(prompts, [replace(row) for row in episodes], split)
    assert "\n" not in str(error.value)


def test_rows_and_features_can_be_left_out():
    table = a_table(6)
    assert table.of([4, 1]).prompts == ("0-4", "0-1")
    assert torch.equal(table.of([4, 1]).rise_PA, table.rise_PA[[4, 1]])
    blind = table.without(HARDWARE_FEATURES)
    assert not blind.state_PF[:, : len(HARDWARE_FEATURES)].any()
    assert torch.equal(blind.state_PF[:, len(HARDWARE_FEATURES) :], table.state_PF[:, len(HARDWARE_FEATURES) :])
    with pytest.raises(ValueError, match="features: 'speed' given, valid is cpu_use, "):
        table.without(["speed"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"actions": ("ffn", "none")}, "actions: ffn, none given, valid is none first"),
        ({"ratio_PA": torch.ones(5, 5)}, r"ratio_PA: 5 rows given, valid is the shape \(6, 5\)"),
        ({"sources": ("one",)}, "sources: 1 rows given"),
        ({"rise_PA": torch.full((6, 5), torch.nan)}, "rise_PA: a number that is not finite"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(a_table(6), **changes)

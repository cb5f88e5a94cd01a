"""Episodes: the rows of prompts and actions, and times that are compared within their own round only."""

import json
import math
import statistics
from dataclasses import asdict, dataclass, fields, replace

import pytest

from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act.actions import Action, parse_actions
from tasks.train_controller.measure import rounds
from tasks.train_controller.measure.episodes import EncodedPrompt, measure_episodes
from tasks.train_controller.measure.rounds import time_actions
from tasks.train_controller.observation import FEATURES, Hardware
from tasks.train_controller.rows import EpisodeRow
from tests.cases import BLOCKS, batches, llama, mistral
from tests.prune.structure.profiled import built

ACTIONS = ["none", "ffn", "heads@window:0.5,sinks=1", "none@key_norm:0.5"]
HEAD_TOKEN = 2 * 8 * 4  # bytes of a KV head of llama() and a position: key and value, 8 wide, float32


class Again(Action):
    """As an action, under another name."""

    def __str__(self) -> str:
        return f"{super().__str__()} again"


@dataclass
class Counting:
    """A reader whose CPU is busier each time."""

    reads: int = 0

    def read(self) -> Hardware:
        self.reads += 1
        return Hardware(cpu_use=self.reads / 10, memory_free=0.5)


def prompt_of(name, tokens, reference, split="train"):
    ids_1T, reference_1R = batches((1, tokens), (1, reference), seed=tokens)
    return EncodedPrompt(prompt=name, source="docs", split=split, ids_1T=ids_1T, reference_1R=reference_1R)


PROMPTS = [prompt_of("a" * 16, 12, 6), prompt_of("b" * 16, 20, 9, split="test")]


@pytest.fixture(scope="module")
def profiles():
    return built(llama())


@pytest.fixture(scope="module")
def rows(profiles):
    actions = [*parse_actions(ACTIONS, profiles.names), Again()]
    done = []
    found = measure_episodes(
        profiles,
        PROMPTS,
        actions,
        reader=Counting(),
        new_tokens=3,
        repetitions=3,
        on_prompt=lambda *at: done.append(at),
    )
    listed = list(found)
    assert done == [(1, 2), (2, 2)]
    assert profiles.active == NONE
    return listed


def test_each_prompt_has_a_row_and_one_for_each_action(rows):
    for number, (prompt, (row, episodes)) in enumerate(zip(PROMPTS, rows, strict=True), start=1):
        assert (row.prompt, row.source, row.split) == (prompt.prompt, "docs", prompt.split)
        assert (row.tokens, row.reference_tokens) == (prompt.ids_1T.shape[1], prompt.reference_1R.shape[1])
        features = json.loads(row.features)
        assert tuple(features) == FEATURES
        assert features["cpu_use"] == number / 10  # read once a prompt
        assert features["prompt_ppl"] == pytest.approx(min(1, row.ppl / 50))
        assert [each.action for each in episodes] == [*ACTIONS, "none again"]
        for episode in episodes:
            assert episode.prompt == prompt.prompt
            assert json.loads(episode.state) == asdict(Hardware(cpu_use=number / 10, memory_free=0.5))


def test_qualities_and_bytes_are_those_of_the_action(rows):
    weights = 4 * sum(each.numel() for each in llama().parameters())
    for (_, episodes), prompt in zip(rows, PROMPTS, strict=True):
        none, ffn, heads, key_norm, again = episodes
        tokens = prompt.ids_1T.shape[1]
        for same in (none, again):
            assert (same.rise, same.kl, same.nll) == (0.0, 0.0, none.dense_nll)
        for cut in (ffn, heads, key_norm):
            assert cut.dense_nll == none.nll
            assert cut.kl > 0
            assert cut.rise == pytest.approx(math.exp(cut.nll) / math.exp(cut.dense_nll) - 1)
        whole = BLOCKS * 2 * tokens * HEAD_TOKEN
        assert [each.cache_bytes for each in episodes] == [
            whole,
            whole,
            4 * (tokens // 2) * HEAD_TOKEN,
            whole / 2,
            whole,
        ]
        assert none.memory_bytes == key_norm.memory_bytes == weights
        assert ffn.memory_bytes == weights - 4 * 3 * 32 * sum(24 + block for block in range(BLOCKS))


def test_speeds_are_of_the_whole_answer(rows):
    for _, episodes in rows:
        assert episodes[0].ratio == 1.0
        assert len({episode.prefill_ms for episode in episodes}) == 1  # all share it
        for episode in episodes:
            timed = [each.name for each in fields(EpisodeRow) if each.name.endswith("_ms")]
            assert all(getattr(episode, name) > 0 for name in timed)
            assert 0 < episode.tokens_per_s < 3000 / (3 * episode.decode_ms)


def test_ratios_are_paired_within_a_round_and_the_first_does_not_count(profiles, monkeypatch):
    """Made-up times of four rounds: the first absurd, then a machine that slows down by half each time."""
    whole_ms = iter([(1.0, 900.0), (10.0, 5.0), (20.0, 16.0), (40.0, 10.0)])

    def made_up(profiles, ids_1T, actions, new_tokens, number):
        return {
            name: rounds._Time(prefill_ms=1.0, switch_ms=0.5, decode_ms=time_ms - 1.5, cache_bytes=7)
            for name, time_ms in zip(("none", "ffn"), next(whole_ms), strict=True)
        }

    monkeypatch.setattr(rounds, "_answer_all", made_up)
    actions = parse_actions(["ffn"], profiles.names)
    none, ffn = time_actions(profiles, PROMPTS[0].ids_1T, actions, new_tokens=4, repetitions=3)
    assert none.ratio == 1.0
    assert ffn.ratio == statistics.median([10 / 5, 20 / 16, 40 / 10])
    assert ffn.decode_ms == pytest.approx((10 - 1.5) / 4)
    assert ffn.tokens_per_s == pytest.approx(4 / 0.010)
    assert (ffn.prefill_ms, ffn.switch_ms, ffn.cache_bytes) == (1.0, 0.5, 7)


def test_the_order_changes_from_round_to_round(profiles, monkeypatch):
    order, plain = [], rounds._answer

    def noted(profiles, read, action, new_tokens):
        order.append(str(action))
        return plain(profiles, read, action, new_tokens)

    monkeypatch.setattr(rounds, "_answer", noted)
    actions = [Action(), Action(profile="ffn"), Again()]
    time_actions(profiles, PROMPTS[0].ids_1T, actions, new_tokens=1, repetitions=6)
    played = [tuple(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert len(played) == 7
    assert all(set(each) == {"none", "ffn", "none again"} for each in played)
    assert len({*played}) == 6
    for place in range(3):
        assert {each[place] for each in played[1:]} == {"none", "ffn", "none again"}


@pytest.mark.parametrize("everyone", ["ab", "abc", "abcd", "abcde"])
def test_over_every_two_rounds_the_mean_place_of_all_is_the_same(everyone):
    for number in range(0, 20, 2):
        pair = [rounds.in_order(everyone, each) for each in (number, number + 1)]
        assert {sum(order.index(each) for order in pair) for each in everyone} == {len(everyone) - 1}
    begins = [rounds.in_order(everyone, number)[0] for number in range(2 * len(everyone))]
    assert all(begins.count(each) == 2 for each in everyone)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ([Action(profile="ffn")], r"^actions: ffn given, valid is none first"),
        ([Action(), Action()], r"^actions: none, none given, valid is none first, and each of them once"),
        ([Action(), Action(profile="gone")], r"^action: gone given, valid profiles are none, heads, ffn"),
        ([], r"^actions:  given, valid is none first"),
    ],
)
def test_wrong_actions_are_named_before_anything_is_measured(profiles, actions, words):
    with pytest.raises(ValueError, match=words):
        measure_episodes(profiles, PROMPTS, actions, reader=Counting())


def test_a_budget_for_sliding_windows_is_refused_before_anything_is_measured():
    with pytest.raises(ValueError, match=r"^budget: .*DynamicSlidingWindowLayer"):
        measure_episodes(Profiles(mistral()), PROMPTS, parse_actions(["none@window:0.5"], []), reader=Counting())


def test_wrong_prompts_and_counts_are_named(profiles):
    def measure(prompt=PROMPTS[0], **how):
        return measure_episodes(profiles, [prompt], [Action()], reader=Counting(), **how)

    with pytest.raises(ValueError, match=r"^new_tokens, repetitions: 0, 5 given"):
        measure(new_tokens=0)
    with pytest.raises(ValueError, match=r"^new_tokens, repetitions: 32, 0 given"):
        measure(repetitions=0)
    with pytest.raises(ValueError, match=r"^prompt: aaaaaaaaaaaaaaaa has 12 tokens and 0 of reference"):
        measure(replace(PROMPTS[0], reference_1R=PROMPTS[0].reference_1R[:, :0]))
    with pytest.raises(ValueError, match=r"has 12 tokens and 53 after them, valid is at most 64 together"):
        measure(new_tokens=53)
    with pytest.raises(ValueError, match=r"has 60 tokens and 6 after them, valid is at most 64 together"):
        measure(prompt_of("c" * 16, 60, 6), new_tokens=4)
    next(measure(new_tokens=52, repetitions=1))  # 12 + 52 fit

"""The controller at work: what it writes, by what it decides, and that it leaves nothing behind however it ends."""

import math
from dataclasses import dataclass

import pytest
import torch

from tasks.model.load import BUILTIN, fingerprint, load_tokenizer, save_model
from tasks.prune.structure.profile_folder import save_profiles
from tasks.prune.structure.profiles import NONE
from tasks.record.manifest import hash_folder
from tasks.train_controller.act.actions import Action, parse_action, parse_actions
from tasks.train_controller.act.answers import Answer, Decision
from tasks.train_controller.learn.learners import LEARNERS
from tasks.train_controller.learn.policy_folder import save_policy
from tasks.train_controller.learn.table import Table
from tasks.train_controller.observation import FEATURES, Hardware, Observation, PromptFeatures
from tasks.train_controller.runtime import Controller, hash_profiles
from tests.cases import llama
from tests.prune.structure.profiled import built

ACTIONS = ("none", "ffn", "heads@window:0.5,sinks=1")
SHORT, LONG = "one two", "one two three four five six seven eight nine ten"
IDS = list(range(20, 36))


class Calm:
    def read(self) -> Hardware:
        return Hardware(cpu_use=0.25, memory_free=0.5)


class Broken:
    def read(self) -> Hardware:
        raise OSError("no sensors")


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """A policy that values a cut as the prompt is long, "none" as 7.5 tokens, and bars the last action."""

    actions: tuple[str, ...] = ACTIONS
    features: tuple[str, ...] = FEATURES
    floor: float = 0.05

    def scores_A(self, state_F):
        tokens = 200 * state_F[FEATURES.index("prompt_tokens")].item()
        return torch.tensor([7.5, tokens, -math.inf])


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(BUILTIN)


def controller_of(tokenizer, chooser=None, reader=None, **changes):
    model = llama(vocab_size=3072, **changes)
    model.generation_config.eos_token_id = None
    profiles = built(model)
    return Controller(profiles, tokenizer, parse_actions(ACTIONS, profiles.names), chooser, reader=reader or Calm())


@pytest.fixture(scope="module")
def controller(tokenizer):
    return controller_of(tokenizer)


def test_the_built_in_models_answer_is_that_of_generate():
    controller = Controller.load(BUILTIN)
    ids_1T = controller.tokenizer("Return the number of", return_tensors="pt").input_ids
    expected_1S = controller.model.generate(ids_1T, max_new_tokens=24, do_sample=False)
    written = expected_1S[0, ids_1T.shape[1] :].tolist()
    *pieces, answer = controller.stream("Return the number of", new_tokens=24)
    assert answer.text == "".join(pieces) == controller.tokenizer.decode(written, skip_special_tokens=True)
    assert (answer.tokens, answer.prompt_tokens) == (len(written), ids_1T.shape[1])
    assert answer.finish == ("stop" if written[-1] == controller.tokenizer.eos_token_id else "length")
    assert str(answer.decision.action) == NONE
    assert answer.decision.scores == {}
    for stop in (answer.text[5:8], answer.text[-4:]):
        cut = controller.answer("Return the number of", new_tokens=24, stop=[stop, "never there"])
        assert (cut.text, cut.finish) == (answer.text.split(stop)[0], "stop")
        assert cut.tokens <= answer.tokens


def test_the_policy_decides_prompt_by_prompt(tokenizer):
    controller = controller_of(tokenizer, ByLength())
    for prompt, action in ((SHORT, "none"), (LONG, "ffn")):
        tokens = len(tokenizer(prompt)["input_ids"])
        answer = controller.answer(prompt, new_tokens=8)
        decision = answer.decision
        assert str(decision.action) == action
        assert decision.scores == pytest.approx({"none": 7.5, "ffn": tokens, ACTIONS[2]: -math.inf})
        assert decision.floor == 0.05
        assert decision.observation.prompt.tokens == tokens
        assert decision.observation.hardware == Calm().read()
        assert 0 < decision.decision_ms < answer.prefill_ms + 1000
        assert answer.text == controller.answer(prompt, new_tokens=8, action=Action(profile=action)).text


def test_an_action_that_is_given_is_taken(tokenizer):
    controller = controller_of(tokenizer, ByLength())
    texts = {}
    for name in (*ACTIONS, "depth@snapkv:0.25"):
        answer = controller.answer(IDS, new_tokens=12, action=parse_action(name))
        assert str(answer.decision.action) == name
        assert (answer.decision.scores, answer.decision.floor) == ({}, None)
        texts[name] = answer.text
    assert len({*texts.values()}) == len(texts)


def test_what_it_took_adds_up(controller):
    answer = controller.answer(IDS, new_tokens=5, action=Action(profile="heads"))
    whole_ms = answer.prefill_ms + answer.decision.decision_ms + answer.switch_ms + 5 * answer.decode_ms
    assert answer.tokens_per_s == pytest.approx(1000 * 5 / whole_ms)
    assert answer.cache_bytes == 4 * len(IDS) * 2 * 8 * 4  # 4 of 6 KV heads; key and value, 8 wide, float32


def test_a_stop_token_ends_an_answer_unless_it_is_ignored(tokenizer):
    plain = controller_of(tokenizer)
    whole = plain.answer(IDS, new_tokens=9)
    read = plain.model.generate(torch.tensor([IDS]), max_new_tokens=9, do_sample=False)[0, len(IDS) :].tolist()
    end = next(token for token in read[2:] if token not in read[:2])
    model = plain.model
    model.generation_config.eos_token_id = [end, 3071]
    controller = Controller(plain.profiles, tokenizer, plain.actions, reader=Calm())
    answer = controller.answer(IDS, new_tokens=9)
    assert (answer.finish, answer.tokens) == ("stop", read.index(end) + 1)
    assert answer.text == tokenizer.decode(read[: read.index(end)], skip_special_tokens=True)
    ignored = controller.answer(IDS, new_tokens=9, ignore_stops=True)
    assert (ignored.finish, ignored.tokens, ignored.text) == ("length", 9, whole.text)


def test_no_more_is_written_than_fits_the_context(controller):
    answer = controller.answer([5] * 60, new_tokens=50)
    assert (answer.tokens, answer.finish) == (4, "length")
    assert controller.answer([5] * 63).tokens == 1


def test_a_token_that_gives_no_text_yet_gives_an_empty_piece(controller):
    text = controller.answer(IDS, new_tokens=9).text
    *pieces, answer = controller.stream(IDS, new_tokens=9, stop=text + "!")  # which all of it may begin
    assert pieces == [""] * 9 + [text]
    assert answer.text == text


def test_a_seed_repeats_an_answer(controller):
    drawn = [controller.answer(IDS, temperature=1.5, top_p=0.9, seed=seed, new_tokens=16).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("leave", ["close", "forget", "throw"])
def test_whoever_leaves_early_leaves_nothing_behind(tokenizer, leave):
    controller = controller_of(tokenizer, ByLength())
    expected = controller.answer(LONG, new_tokens=12)
    stream = controller.stream(LONG, new_tokens=12)
    assert isinstance(next(stream), str)
    assert controller.profiles.active == "ffn"
    if leave == "close":
        stream.close()
    elif leave == "throw":
        with pytest.raises(KeyError):
            stream.throw(KeyError("of the caller"))
    del stream
    assert controller.profiles.active == NONE
    assert controller.answer(LONG, new_tokens=12).text == expected.text


def test_an_error_leaves_nothing_behind(tokenizer):
    controller = controller_of(tokenizer, ByLength())
    expected = controller.answer(LONG, new_tokens=6)

    def fail(*_):
        if controller.profiles.active == "ffn":
            raise OSError("the device is gone")

    hook = controller.model.register_forward_pre_hook(fail)
    with pytest.raises(OSError, match="gone"):
        controller.answer(LONG)
    hook.remove()
    assert controller.profiles.active == NONE
    controller.reader = Broken()
    with pytest.raises(OSError, match="no sensors"):
        controller.answer(LONG)
    controller.reader = Calm()
    assert controller.answer(LONG, new_tokens=6).text == expected.text


def test_a_second_stream_is_refused_while_one_is_open_and_harms_it_not(controller):
    expected = controller.answer(IDS, new_tokens=6)
    first = controller.stream(IDS, new_tokens=6)
    second = controller.stream(IDS)
    begun = next(first)
    with pytest.raises(RuntimeError, match="another one is open"):
        next(second)
    *pieces, last = first
    assert "".join([begun, *pieces]) == last.text == expected.text
    assert isinstance(last, Answer)


@pytest.mark.parametrize(
    ("prompt", "how", "words"),
    [
        ("", {}, "prompt: an empty one given"),
        ([], {}, "prompt: an empty one given"),
        ("caf\udce9", {}, r"prompt: '\\udce9' as its character 3 given, valid is Unicode text"),
        ([5] * 64, {}, "prompt: 64 tokens given, valid is at most 63"),
        ([5, 3072], {}, "prompt: ids from 5 to 3072 given, valid is 0 to 3071"),
        ([5, -1], {}, "prompt: ids from -1 to 5 given"),
        ("a", {"new_tokens": 0}, "new_tokens: 0 given"),
        ("a", {"temperature": -1.0}, "temperature: -1.0 given"),
        ("a", {"top_p": 0.0}, "top_p: 0.0 given"),
        ("a", {"stop": ["x", ""]}, "stop: '' given"),
        ("a", {"action": Action(profile="gone")}, "action: gone given, valid profiles are none, heads"),
    ],
)
def test_wrong_words_are_named_at_once(controller, prompt, how, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        controller.stream(prompt, **how)


def test_a_policy_for_another_controller_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^policy: it chooses among none, ffn, depth, valid is none, ffn, heads@"):
        controller_of(tokenizer, ByLength(actions=("none", "ffn", "depth")))
    with pytest.raises(ValueError, match=r"^policy: it sees cpu_use, valid is cpu_use, memory_free"):
        controller_of(tokenizer, ByLength(features=("cpu_use",)))


def test_why_is_a_sentence_of_scores_and_state():
    seen = Observation(
        hardware=Hardware(cpu_use=0.25, memory_free=0.5),
        prompt=PromptFeatures(tokens=40, ppl=25.0, entropy=0.5, confidence=0.5, worst=0.5, first_block=0.5),
    )

    def decision(action, scores, named=False):
        chosen = {"action": Action(profile=action), "scores": scores, "floor": 0.05 if scores else None}
        return Decision(observation=seen, named=named, decision_ms=0.1, **chosen).why

    rest = "; the prompt has 40 tokens, a perplexity of 25.0 and a complexity of 0.32; "
    rest += "25% of the CPU is in use and 50% of the memory is free."
    assert decision("none", {}) == "none was taken, as there is no policy to choose" + rest
    assert decision("ffn", {}, named=True) == "ffn was asked for" + rest
    assert decision("ffn", {"none": 1.0, "ffn": 1.25}) == (
        "ffn was chosen with a score of 1.250, ahead of none with 1.000" + rest
    )
    assert decision("none", {"none": 1.0, "ffn": -math.inf, "depth": -math.inf}) == (
        "none was chosen with a score of 1.000, 2 of 3 actions may lose more than 5%" + rest
    )


def learned(actions):
    """A policy of prompts all of which "ffn" answers half as fast again, and as well."""
    prompts = 40
    ratio_PA = torch.tensor([[1.5 if action == "ffn" else 1.0 for action in actions]]).repeat(prompts, 1).double()
    table = Table(
        actions=actions,
        features=FEATURES,
        prompts=tuple(str(number) for number in range(prompts)),
        sources=("docs",) * prompts,
        state_PF=torch.rand(prompts, len(FEATURES), generator=torch.Generator().manual_seed(0)).double(),
        ratio_PA=ratio_PA,
        rise_PA=torch.zeros_like(ratio_PA),
        kl_PA=torch.zeros_like(ratio_PA),
    )
    return LEARNERS["bandit"]().learn(table, 0.05, 0)


def test_a_controller_is_loaded_from_folders_that_belong_together(tmp_path):
    model, profiles, policies = (tmp_path / name for name in ("model", "profiles", "policy"))
    save_model(llama(vocab_size=3072), BUILTIN, model)
    save_profiles(built(llama(vocab_size=3072)), fingerprint(model), profiles)
    chooser = learned(("none", "ffn", "depth@window:0.5"))
    save_policy(chooser, policies, fingerprint(model), hash_profiles(profiles))

    plain = Controller.load(model)
    assert [str(action) for action in plain.actions] == [NONE]
    with_profiles = Controller.load(model, profiles)
    assert [str(action) for action in with_profiles.actions] == [NONE, "heads", "ffn", "depth", "all"]
    expected = {controller.answer(IDS, new_tokens=4).text for controller in (plain, with_profiles)}
    assert len(expected) == 1
    chosen = Controller.load(model, profiles, policies).answer(IDS, new_tokens=4)
    assert str(chosen.decision.action) == "ffn"
    assert chosen.text == with_profiles.answer(IDS, new_tokens=4, action=Action(profile="ffn")).text

    with pytest.raises(ValueError, match=r"^profiles: .* is of model "):
        Controller.load(BUILTIN, profiles)
    save_policy(chooser, policies, fingerprint(model), "b" * 64)
    with pytest.raises(ValueError, match=r"^policy: .*b{64}"):
        Controller.load(model, profiles, policies)
    save_policy(chooser, policies, "c" * 64, hash_profiles(profiles))
    with pytest.raises(ValueError, match=r"^policy: .*c{64}"):
        Controller.load(model, profiles, policies)


def test_profiles_are_known_by_the_hash_under_which_they_are_stored(tmp_path):
    save_profiles(built(llama()), "a" * 64, tmp_path)
    assert hash_profiles(tmp_path) == hash_folder(tmp_path)

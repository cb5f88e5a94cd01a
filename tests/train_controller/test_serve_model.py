"""The service with a real model whose actions differ by prompt: what it answers is what the controller does alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tasks.model.load import BUILTIN, load_model, load_tokenizer
from tasks.prune.structure.named_cuts import of_equal_scores, parse_cuts
from tasks.prune.structure.profiles import Profiles
from tasks.train_controller.act.actions import parse_actions
from tasks.train_controller.observation import FEATURES, LONG_PROMPT, Hardware
from tasks.train_controller.runtime import Controller
from tests.train_controller.served import CHAT, COMPLETIONS, Served, chat, completion, events, serving

PROMPTS = [" ".join(["The function returns", *words]) for words in (["a list"] * count for count in range(1, 9))]
HOW = {"temperature": 0.8, "top_p": 0.9, "seed": 3}


class Idle:
    """A machine that does nothing else, so that a prompt alone makes the state."""

    def read(self) -> Hardware:
        return Hardware(cpu_use=0.0, memory_free=1.0)


class ByLength:
    """Another action for each length of a prompt."""

    features, floor = FEATURES, 0.05

    def __init__(self, actions: tuple[str, ...]) -> None:
        self.actions = actions

    def scores_A(self, state_F: Tensor) -> Tensor:
        tokens = round(float(state_F[FEATURES.index("prompt_tokens")]) * LONG_PROMPT)
        return torch.nn.functional.one_hot(torch.tensor(tokens % len(self.actions)), len(self.actions)).float()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    profiles = Profiles(load_model(BUILTIN))
    for cut in parse_cuts("ffn30,depth35"):
        profiles.add(of_equal_scores(cut, profiles.model, 64))
    actions = parse_actions(["ffn30", "depth35@window:0.5"], profiles.names)
    policy = ByLength(tuple(map(str, actions)))
    controller = Controller(profiles, load_tokenizer(BUILTIN), actions, policy, reader=Idle())
    with serving(controller, "builtin", queue=8) as it:
        yield it


def ask(served: Served, prompt: str, **more) -> dict:
    return served.client.post(COMPLETIONS, json=completion(prompt, 12, model="builtin", **HOW, **more)).json()


def test_eight_clients_at_once_get_what_each_gets_alone(served: Served):
    alone = [served.controller.answer(prompt, new_tokens=12, **HOW) for prompt in PROMPTS]
    assert len({str(answer.decision.action) for answer in alone}) == 3
    assert len({answer.text for answer in alone}) == 8
    with ThreadPoolExecutor(8) as clients:
        replies = list(clients.map(lambda prompt: ask(served, prompt), PROMPTS))
    for reply, answer in zip(replies, alone, strict=True):
        assert reply["choices"][0]["text"] == answer.text
        assert reply["choices"][0]["finish_reason"] == answer.finish
        assert reply["espalier"]["action"] == str(answer.decision.action)
        assert reply["usage"]["completion_tokens"] == answer.tokens


def test_a_stream_is_the_whole_answer_in_pieces(served: Served):
    for prompt in PROMPTS[:3]:
        body = completion(prompt, 12, model="builtin", stream=True, **HOW)
        parts = events(served.client.post(COMPLETIONS, json=body))
        whole = ask(served, prompt)
        assert "".join(part["choices"][0]["text"] for part in parts) == whole["choices"][0]["text"]
        assert parts[-1]["espalier"]["action"] == whole["espalier"]["action"]
        assert len(parts) > 4


def test_a_seed_that_is_not_given_is_drawn(served: Served):
    free = completion(PROMPTS[0], 12, model="builtin", temperature=1.5)
    texts = {served.client.post(COMPLETIONS, json=free).json()["choices"][0]["text"] for _ in range(4)}
    assert len(texts) > 1


def test_a_stop_text_is_not_in_the_answer(served: Served):
    text = ask(served, PROMPTS[0])["choices"][0]["text"]
    stop = text[5:8]
    choice = ask(served, PROMPTS[0], stop=stop)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")


def test_what_the_controller_refuses_is_told_with_its_numbers(served: Served):
    long = served.client.post(COMPLETIONS, json=completion("a tree " * 600, model="builtin"))
    error = long.json()["error"]
    assert (long.status_code, error["param"]) == (400, "prompt")
    assert error["message"].endswith("tokens given, valid is at most 511")


def test_a_chat_is_answered(served: Served):
    reply = served.client.post(CHAT, json=chat("What is a list?", model="builtin")).json()
    told = "User: What is a list?\n\nAssistant:"
    alone = served.controller.answer(told, new_tokens=4, stop=("\nUser:",))
    assert reply["choices"][0]["message"]["content"] == alone.text

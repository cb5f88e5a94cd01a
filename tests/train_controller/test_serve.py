"""The service over real connections: whose answer is whose, and what is refused."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tasks.train_controller.serve import MOST_BYTES, listen
from tests.train_controller.served import CHAT, COMPLETIONS, MODEL, Served, chat, completion, events, serving, until
from tests.train_controller.stand_in import CONTEXT, DECISION, OBSERVATION, StandIn, text_of


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(StandIn()) as it:
        yield it


def test_a_completion_is_what_the_controller_writes(served: Served):
    reply = served.ask("a tree along a frame", tokens=3).json()
    assert reply["object"] == "text_completion"
    assert reply["model"] == MODEL
    text = text_of("a tree along a frame", 3)
    assert reply["choices"] == [{"index": 0, "text": text, "finish_reason": "length", "logprobs": None}]
    assert reply["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    told = reply["espalier"]
    assert (told["action"], told["why"]) == ("ffn20", DECISION.why)
    assert (told["scores"], told["floor"]) == ({"none": 1.0, "ffn20": 1.5, "ffn30": None}, 0.05)  # infinity is no JSON
    assert told["state"] == OBSERVATION.as_dict()


def test_a_chat_without_a_template_is_told_plainly(served: Served):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "a tree?"}]},
    ]
    reply = served.client.post(CHAT, json=chat() | {"messages": messages}).json()
    told = "System: Be brief.\n\nUser: What is a tree?\n\nAssistant:"
    assert served.controller.begun[-1] == told
    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": text_of(told, 4)}


@pytest.mark.parametrize("seed", [0, 7])
def test_a_stream_is_the_answer_in_pieces(served: Served, seed: int):
    how = {"temperature": 0.7, "seed": seed}
    whole = served.ask("one two", **how).json()
    parts = events(served.ask("one two", stream=True, stream_options={"include_usage": True}, **how))
    *pieces, last, usage = parts
    assert len(pieces) == 4
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == text_of("one two", 4, seed)
    assert whole["choices"][0]["text"] == text_of("one two", 4, seed)
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None] * 4
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "length")
    assert last["espalier"] == whole["espalier"]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({part["id"] for part in parts}) == 1


def test_a_streamed_chat_begins_with_its_role_and_ends_with_the_reason(served: Served):
    whole = served.client.post(CHAT, json=chat("hello")).json()
    first, *pieces, last = events(served.client.post(CHAT, json=chat("hello", stream=True)))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    written = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
    assert written == whole["choices"][0]["message"]["content"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")


def test_a_stop_text_ends_the_answer(served: Served):
    words = text_of("one two", 4).split()
    choice = served.ask("one two", stop=[words[2]]).json()["choices"][0]
    assert (choice["text"].split(), choice["finish_reason"]) == (words[:2], "stop")


def test_eight_clients_at_once_get_their_own_answers():
    with serving(StandIn(pace_s=0.0005)) as served, ThreadPoolExecutor(8) as clients:

        def ask(number: int) -> tuple[str, str]:
            prompt, stream = f"prompt {number % 8}", number % 2 == 1
            response = served.ask(prompt, 12, stream=stream)
            parts = events(response) if stream else [response.json()]
            return prompt, "".join(part["choices"][0]["text"] for part in parts)

        answers = list(clients.map(ask, range(64)))
        assert answers == [(prompt, text_of(prompt, 12)) for prompt, _ in answers]
        assert len({text for _, text in answers}) == 8


def test_who_comes_first_is_answered_first_and_who_finds_it_full_may_come_again():
    with serving(StandIn(), queue=2) as served, ThreadPoolExecutor(3) as clients:
        served.controller.hold.clear()
        waiting = []
        for number in range(3):
            waiting.append(clients.submit(served.ask, f"prompt {number}"))
            until(lambda at=number: (len(served.controller.begun), served.service.line.waiting) == (1, at))
        refused = served.ask("one more")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        served.controller.hold.set()
        assert [each.result().status_code for each in waiting] == [200] * 3
        assert served.controller.begun == ["prompt 0", "prompt 1", "prompt 2"]
        assert served.ask("one more").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"model": "gpt"}, 404, "model"),
        ({"model": None}, 400, "model"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": ["a", "b"]}, 400, "prompt"),
        ({"prompt": "word " * (CONTEXT + 1)}, 400, "prompt"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 513}, 400, "max_tokens"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"temperature": 2.5}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"seed": -1}, 400, "seed"),
        ({"stop": ["a", ""]}, 400, "stop"),
        ({"stop": list("abcde")}, 400, "stop"),
        ({"stream_options": {"usage": True}}, 400, "stream_options"),
        ({"n": 2}, 400, "n"),
        ({"logprobs": 1}, 400, "logprobs"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"best_of": 3}, 400, "best_of"),
        ({"min_p": 0.1}, 400, "min_p"),
        ({"user": 7}, 400, "user"),
        ({"messages": []}, 400, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(served: Served, change: dict, status: int, field: str, stream):
    response = served.client.post(COMPLETIONS, json=completion("one two", stream=stream) | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, field)
    assert error["message"].startswith(f"{field}:")
    assert error["type"] == "invalid_request_error"
    assert served.ask("and on").status_code == 200


def test_values_that_ask_for_what_is_done_anyway_are_taken(served: Served):
    usual = {"n": 1, "top_p": 1, "echo": False, "logprobs": None, "tools": [], "response_format": {"type": "text"}}
    usual |= {"user": "Ada"}
    assert served.ask("one two", **usual).json()["choices"][0]["text"] == text_of("one two", 4)


def test_chats_that_are_none_are_refused_with_their_place(served: Served):
    user = {"role": "user", "content": "hello"}
    for messages, field in (
        ([], "messages"),
        ("hello", "messages"),
        ([user, "hello"], "messages[1]"),
        ([user | {"role": "tool"}], "messages[0].role"),
        ([user | {"name": "Ada"}], "messages[0].name"),
        ([user | {"content": None}], "messages[0].content"),
        ([user | {"content": [{"type": "image_url", "text": "x"}]}], "messages[0].content[0].type"),
        ([user | {"content": [{"type": "input_audio"}]}], "messages[0].content[0]"),
    ):
        response = served.client.post(CHAT, json=chat() | {"messages": messages})
        assert (response.status_code, response.json()["error"]["param"]) == (400, field)
    both = served.client.post(CHAT, json=chat("hello", max_completion_tokens=4))
    assert (both.status_code, both.json()["error"]["param"]) == (400, "max_tokens")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"[" * 200_000, "application/json", 400),
        (b'{"prompt": "\xff"}', "application/json; charset=utf-8", 400),
        (b'{"model": "stand-in", "prompt": "\\ud800"}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * (MOST_BYTES + 1), "application/json", 413),
    ],
)
def test_bodies_that_are_no_requests_are_refused(served: Served, content: bytes, kind: str, status: int):
    response = served.client.post(COMPLETIONS, content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert served.ask("and on").status_code == 200


def test_names_of_fields_that_no_reply_can_carry_are_told_escaped(served: Served):
    content = json.dumps(completion("one two") | {"\udce9": 1})
    response = served.client.post(COMPLETIONS, content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, r"\udce9")


def test_other_places_methods_and_names_of_this_machine_are_refused(served: Served):
    absent, wrong = served.client.get("/v1/embeddings"), served.client.get(COMPLETIONS)
    assert (absent.status_code, wrong.status_code) == (404, 405)
    assert "/v1/embeddings" in absent.json()["error"]["message"]
    rebound = served.client.get("/v1/models", headers={"Host": "evil.example"})  # as a page in a browser would
    assert rebound.status_code == 400


def test_a_model_that_breaks_takes_one_answer_with_it(served: Served):
    broken = served.ask("break")
    assert (broken.status_code, broken.json()["error"]["type"]) == (500, "server_error")
    *pieces, error, end = served.ask("break", stream=True).text.split("\n\n")
    assert len(pieces) == 2
    assert (json.loads(error.removeprefix("data: ")), end) == (broken.json(), "")  # and no [DONE]
    assert served.ask("and on").status_code == 200


def test_a_port_that_is_taken_is_refused():
    with serving(StandIn()) as served, pytest.raises(ValueError, match=f"port: {served.port} cannot be had"):
        listen(served.port)


def test_what_is_served_and_how_it_fares(served: Served):
    (model,) = served.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == (MODEL, "model")
    assert served.client.get("/health").json() == {"status": "ok", "model": MODEL, "waiting": 0}


def test_an_action_that_no_policy_chose_counts_as_no_decision():
    with serving(StandIn(decision=replace(DECISION, scores={}, floor=None))) as served:
        served.ask("one two")
        text = served.client.get("/metrics").text
    assert "espalier_decision_seconds_count 0.0" in text.splitlines()
    assert "espalier_answer_seconds_count 1.0" in text.splitlines()


def test_counts_for_prometheus():
    with serving(StandIn()) as served:
        for _ in range(2):
            served.ask("one two", tokens=3)
        served.ask("one two", model="gpt")
        served.client.get("/nowhere")
        served.client.get("/elsewhere")
        text = served.client.get("/metrics").text
    for line in (
        'espalier_requests_total{endpoint="/v1/completions",status="200"} 2.0',
        'espalier_requests_total{endpoint="/v1/completions",status="404"} 1.0',
        'espalier_requests_total{endpoint="other",status="404"} 2.0',
        'espalier_tokens_total{kind="prompt"} 4.0',
        'espalier_tokens_total{kind="answer"} 6.0',
        'espalier_answers_total{action="ffn20"} 2.0',
        "espalier_waiting 0.0",
        "espalier_decision_seconds_sum 0.001",
        'espalier_decision_seconds_bucket{le="0.0005"} 2.0',
        "espalier_answer_seconds_count 2.0",
    ):
        assert line in text.splitlines(), line

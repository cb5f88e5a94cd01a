"""`espalier generate`: an answer as it is written, then which action wrote it, why, and what that gained."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from flows.answer_words import controller_of
from flows.terminal import say

if TYPE_CHECKING:
    from tasks.train_controller.act.answers import Answer
    from tasks.train_controller.runtime import Controller


def run_generate(arguments: argparse.Namespace) -> int:
    """The text goes to stdout, or to stderr where a program reads JSON from stdout; 130 after Ctrl-C."""
    try:
        return generate(arguments)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        say("interrupted")
        return 130


def generate(arguments: argparse.Namespace) -> int:
    from tasks.train_controller.act.actions import Action
    from tasks.train_controller.service.reply import facts

    prompt = sys.stdin.read().removesuffix("\n") if arguments.prompt == "-" else arguments.prompt
    controller = controller_of(arguments)
    how = how_of(arguments, controller)
    answer = write(controller.stream(prompt, **how), sys.stderr if arguments.json else sys.stdout)
    tell(answer)
    found = {"text": answer.text, "finish": answer.finish, "prompt_tokens": answer.prompt_tokens}
    found |= {"tokens": answer.tokens} | facts(answer)
    if arguments.compare:
        dense = controller.answer(prompt, **how | {"action": Action()})
        again = controller.answer(prompt, **how | {"action": answer.decision.action})
        found |= {"again": facts(again), "dense": {"text": dense.text, "tokens": dense.tokens} | facts(dense)}
        tell_gain(again, dense)
    if arguments.json:
        print(json.dumps(found))
    return 0


def how_of(arguments: argparse.Namespace, controller: "Controller") -> dict[str, Any]:
    """How the prompt is to be answered. Raises ValueError for an action that is none, or beside a policy."""
    from tasks.prune.structure.profiles import NONE
    from tasks.train_controller.act.actions import parse_action, parse_actions

    how = {"new_tokens": arguments.tokens, "temperature": arguments.temperature, "seed": arguments.seed}
    how |= {"stop": tuple(arguments.stop)}
    if arguments.action is None:
        return how
    if arguments.policy is not None:
        raise ValueError(f"action: {arguments.action} given beside a policy, which chooses; leave one of them out")
    profiles = controller.profiles.names[1:]
    if not profiles and parse_action(arguments.action).profile != NONE:
        raise ValueError(f"action: {arguments.action!r} given, but no profiles are; give --profiles")
    *_, action = parse_actions([arguments.action], profiles)
    return how | {"action": action}


def write(events: "Iterator[str | Answer]", place: TextIO) -> "Answer":
    """Each piece as it comes; the answer."""
    text, answer = "", None
    for event in events:
        if not isinstance(event, str):
            answer = event
        elif event:  # a token may give no text yet
            print(event, end="", file=place, flush=True)
            text += event
    assert answer is not None
    print(end="" if text.endswith("\n") else "\n", file=place, flush=True)
    return answer


def tell(answer: "Answer") -> None:
    """Which action, why, and how long everything took."""
    decision = answer.decision
    say(decision.why)
    if decision.scores:
        scored = (f"{action} {score:.3f}" for action, score in decision.scores.items() if score > -math.inf)
        say("scores: " + ", ".join(scored))  # of the actions that the floor allows
    say("saw: " + ", ".join(f"{name} {value:.2f}" for name, value in decision.observation.as_dict().items()))
    say(
        f"{answer.tokens} tokens after {answer.prompt_tokens} at {answer.tokens_per_s:.1f} tokens/s: "
        f"read in {answer.prefill_ms:.1f} ms, decided in {decision.decision_ms:.2f}, "
        f"switched in {answer.switch_ms:.2f}, wrote in {answer.decode_ms:.2f} a token"
    )


def tell_gain(answer: "Answer", dense: "Answer") -> None:
    """Two answers that were timed one after the other, both by a model that had answered before."""
    same = next(
        (at for at, (one, other) in enumerate(zip(answer.text, dense.text, strict=False)) if one != other),
        min(len(answer.text), len(dense.text)),
    )
    alike = "the same text" if answer.text == dense.text else f"the same text for {same} of its characters"
    say(
        f"the whole model, timed once beside it: {dense.tokens_per_s:.1f} tokens/s, so {answer.decision.action} is "
        f"{answer.tokens_per_s / dense.tokens_per_s:.2f} times as fast; {alike}"
    )

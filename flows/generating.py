"""`espalier generate`: an answer as it is written, then which action wrote it, why, and what that gained."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from flows.answer_words import controller_of
from flows.terminal import say

if TYPE_CHECKING:
    from tasks.train_controller.act.answers import Answer
    from tasks.train_controller.runtime import Controller

PAIRS = 8  # answers of each kind that a comparison times


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
        found |= {"dense": {"text": dense.text, "tokens": dense.tokens} | facts(dense)}
        found |= {"gain": tell_gain(answer, dense, time_pairs(controller, prompt, how, answer.tokens))}
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


def time_pairs(
    controller: "Controller", prompt: str, how: dict[str, Any], tokens: int
) -> "list[tuple[Answer, Answer]]":
    """The prompt answered so and by the whole model, in turn, the one first and then the other: equally many tokens.

    It is decided anew each time, so that what that takes counts too.
    """
    from tasks.train_controller.act.actions import Action

    even = how | {"new_tokens": tokens, "ignore_stops": True, "stop": ()}
    sides = {"so": even, "whole": even | {"action": Action()}}
    pairs = []
    for number in range(PAIRS):
        answers = {side: controller.answer(prompt, **sides[side]) for side in sorted(sides, reverse=number % 2 == 1)}
        pairs.append((answers["so"], answers["whole"]))
    return pairs


def tell_gain(answer: "Answer", dense: "Answer", pairs: "list[tuple[Answer, Answer]]") -> dict[str, Any]:
    """How much faster the answers came than those of the whole model, and whether `answer` is the same text."""
    from tasks.evaluate.speed import compare_paired

    same = next(
        (at for at, (one, other) in enumerate(zip(answer.text, dense.text, strict=False)) if one != other),
        min(len(answer.text), len(dense.text)),
    )
    alike = "the same text" if answer.text == dense.text else f"the same text for {same} of its characters"
    took = " or ".join(dict.fromkeys(str(so.decision.action) for so, _ in pairs))
    so_s, whole_s = ([1 / each.tokens_per_s for each in side] for side in zip(*pairs, strict=True))
    gained = compare_paired(whole_s, so_s)
    say(
        f"beside the whole model, {len(pairs)} times in turn: {took} at {1 / median(so_s):.1f} tokens/s, the whole "
        f"model at {1 / median(whole_s):.1f}; {gained.ratio:.2f} times as fast ({gained.low:.2f} to {gained.high:.2f}: "
        f"{gained.verdict}); {alike}"
    )
    facts_of = {"action": took, "pairs": len(pairs), "ratio": gained.ratio, "low": gained.low, "high": gained.high}
    return facts_of | {"tokens_per_s": 1 / median(so_s), "dense_tokens_per_s": 1 / median(whole_s)}

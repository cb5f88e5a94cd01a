"""`espalier promote`: its words, and what it says of every gate."""

import argparse
from dataclasses import asdict

from flows.comparing import NAMED, show
from flows.terminal import say


def say_promote(made: argparse.ArgumentParser) -> None:
    made.add_argument("version", metavar="VERSION", help=NAMED)
    made.add_argument("--alias", default="champion", help="what moves to it (champion)")
    made.add_argument("--floor", type=float, default=0.5, help="the share by which its perplexity may rise (0.5)")
    made.add_argument("--size", type=float, default=1.0, help="the share of the dense model's bytes it may have (1)")
    made.add_argument(
        "--speed",
        type=float,
        default=0.8,
        help="how many times as fast as the dense model it must be, prefill and decode, at the lower end of the 95%% "
        "interval (0.8)",
    )
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def run_promote(arguments: argparse.Namespace) -> int:
    from tasks.record.registry.gates import Limits, closed
    from tasks.record.registry.promotion import check_alias, promote
    from tasks.record.runs.comparison_words import gates_words
    from tasks.record.runs.lineage import lineage_of

    check_alias(arguments.alias)
    limits = Limits(floor=arguments.floor, size=arguments.size, speed=arguments.speed)
    made = promote(lineage_of(arguments.version), arguments.alias, limits)
    show(asdict(made) | {"passed": made.passed} if arguments.json else gates_words(made.gates))
    failed = "; ".join(f"{gate.name}: {gate.says}" for gate in closed(made.gates))
    if failed:
        say(f"{made.alias} stays on {made.holder or 'no version'}, {made.version} does not pass: {failed}")
        return 1
    say(f"{made.alias} is {made.version}, {f'before it was {made.before}' if made.before else 'its first version'}")
    return 0

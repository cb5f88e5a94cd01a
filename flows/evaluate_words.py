"""`espalier evaluate`: its words, and its run."""

import argparse
import json
from dataclasses import asdict

from flows.server import prefect_server
from flows.terminal import say, show_end
from flows.words import say_model


def say_evaluate(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--suite",
        required=True,
        help="zero_shot, few_shot, wikitext, or lm-eval's own names of tasks and groups: arc_easy,mmlu",
    )
    made.add_argument(
        "--dense", help="the model that it was made of, asked beside it; by default the one that the stored rows name"
    )
    made.add_argument(
        "--tasks-data", metavar="DIR", help="a folder with the questions in local files; without it they are the hub's"
    )
    made.add_argument("--limit", help="of each task only the first so many questions")
    made.add_argument("--batch", default=8, help="requests that are computed at once (8)")
    made.add_argument("--chat", action="store_true", help="ask in the tokenizer's chat template")
    made.add_argument("--keep-samples", action="store_true", help="store every question with its replies, as Parquet")
    made.add_argument("--seed", default=0, help="of the solved examples that are drawn (0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def run_evaluate(arguments: argparse.Namespace) -> int:
    from flows.evaluate_choices import Evaluate
    from flows.evaluate_fit import prepare_evaluate

    words = {name: value for name, value in vars(arguments).items() if name in Evaluate.model_fields}
    parameters = Evaluate.parse(**words)
    found = prepare_evaluate(parameters)  # before a server is started for it
    if "dense" not in found.models:
        say("nothing stands beside the model: no row says what it was made of, and no --dense was given")

    from flows.evaluate import evaluate_benchmarks

    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = evaluate_benchmarks(parameters)
    show_end(outcome.run, outcome.report, arguments.json)
    for folder in outcome.samples:
        say(f"the replies are in {folder}")
    if arguments.json:
        places = {"run": outcome.run, "checkpoint": outcome.checkpoint, "report": outcome.report}
        print(json.dumps(places | {"samples": outcome.samples, "benchmarks": [asdict(row) for row in outcome.rows]}))
    return 0

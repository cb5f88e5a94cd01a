"""`espalier controller train|test|report`: their words, and their runs."""

import argparse
import json
from typing import TYPE_CHECKING

from flows.names import IMPORTANCES, USUAL_IMPORTANCE, number, one_of, whole
from flows.server import prefect_server
from flows.terminal import say, show_end
from flows.words import say_model

if TYPE_CHECKING:
    from flows.controller import ControllerOutcome
    from flows.controller_choices import Controller
    from tasks.train_controller.rows import ControllerRow

PURPOSE = "learn for each prompt how much of a model it needs"
MODES = {
    "train": "measure what each action does to each prompt, and learn from it which to choose",
    "test": "the same, and answer the test prompts live; what was trained is found again",
}


def say_controller(made: argparse.ArgumentParser) -> None:
    modes = made.add_subparsers(metavar="train|test|report", required=True)
    for mode, purpose in MODES.items():
        own = modes.add_parser(mode, help=purpose, description=purpose)
        own.set_defaults(run=run_controller, live=mode == "test")
        _say_training(own)
    purpose = "write the page of a controller's run anew from the stored rows"
    own = modes.add_parser("report", help=purpose, description=purpose)
    own.add_argument("run_id", nargs="?", metavar="RUN", help="the latest run of a controller if not given")
    own.set_defaults(run=run_controller_report)


def _say_training(made: argparse.ArgumentParser) -> None:
    say_model(made)
    made.add_argument(
        "--prompts",
        default="docs",
        metavar="SOURCE",
        help="docs (the default), or FILE[first:last] of .csv, .jsonl or .parquet with a column `prompt` and a "
        "`reference` that follows it, as gsm8k, humaneval, mbpp and dolly have them; several joined by +",
    )
    made.add_argument("--prompt-limit", type=whole(1), help="so many prompts; by default all")
    made.add_argument(
        "--floor", default="0.05", help="by what share the perplexity may rise at most (0.05); several: 0.02,0.05,0.1"
    )
    made.add_argument(
        "--actions",
        help="what may be done beside none: a profile, and after an @ what is kept of the prompt's cache, such as "
        "ffn20,none@window:0.5,ffn20@snapkv:0.25 (window, snapkv, key_norm); by default each profile, and half of the "
        "cache",
    )
    made.add_argument("--profiles", help="heads20,ffn20,depth17; by default those that the actions name, or the usual")
    made.add_argument("--learner", default="both", help="dqn, bandit or both (the default); options: dqn,passes=8")
    made.add_argument(
        "--reward", default="", help="quality=3 (what a rise of the perplexity by 1 costs), tolerance=1, most=1"
    )
    made.add_argument(
        "--target",
        type=number(above=0, below=1),
        default=0.005,
        help="the share of the prompts on which policies and the best fixed action may break a floor (0.005)",
    )
    made.add_argument("--seeds", type=whole(1), default=5, help="policies of each learner for each floor (5)")
    made.add_argument(
        "--ablations", action="store_true", help="learn without a part of the state too, and with other rewards"
    )
    made.add_argument("--tokens", type=whole(2), default=32, help="of an answer, and of a reference at most (32)")
    made.add_argument(
        "--repetitions",
        type=whole(1),
        default=4,
        help="of each timing, the actions taking turns; an even number is fairest (4)",
    )
    made.add_argument(
        "--importance",
        default=USUAL_IMPORTANCE,
        type=one_of(*IMPORTANCES),
        help="of heads and channels, as `espalier profiles` has it (wanda_sp)",
    )
    made.add_argument("--round-to", type=whole(1), default=64, help="the channels that stay are a multiple of it (64)")
    made.add_argument("--no-repair", dest="repair", action="store_false", help="leave what read the units as it was")
    made.add_argument("--calibration", default="docs", metavar="SOURCE", help="by what profiles are chosen (docs)")
    made.add_argument("--samples", type=whole(1), default=128, help="calibration windows (128)")
    made.add_argument("--window", type=whole(2), help="tokens of a calibration window (as `espalier profiles`)")
    made.add_argument("--seed", type=whole(0), default=0, help="of the sampling, and of the split of the prompts (0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")


def controller_of(arguments: argparse.Namespace) -> "Controller":
    """The words of `espalier controller` as the parameters of its flow. ValueError in one line."""
    from flows.controller_choices import Controller, parse_learners, parse_reward
    from flows.methods import parse_importance

    taken = {name: value for name, value in vars(arguments).items() if name in Controller.model_fields}
    taken |= {"learner": parse_learners(arguments.learner), "reward": parse_reward(arguments.reward)}
    return Controller.parse(**taken | {"importance": parse_importance(arguments.importance)})


def run_controller(arguments: argparse.Namespace) -> int:
    from flows.controller_fit import prepare_controller

    parameters = controller_of(arguments)
    prepare_controller(parameters)  # before a server is started for it

    from flows.controller import train_controller

    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = train_controller(parameters)
    show_end(outcome.run, outcome.report, arguments.json)
    for line in lines_of(outcome, parameters):
        say(line)
    if arguments.json:
        print(json.dumps(controller_json(outcome)))
    return 0


def lines_of(outcome: "ControllerOutcome", parameters: "Controller") -> list[str]:
    """Where each policy is, and how to use it."""
    use = f"espalier generate --model {parameters.model} --profiles {outcome.profiles} --policy"
    return [
        f'floor {each.trained.floor:g}: {each.trained.name} is in {each.folder}; use it by\n  {use} {each.folder} "…"'
        for each in outcome.chosen
    ]


def controller_json(outcome: "ControllerOutcome") -> dict:
    """The JSON object that programs read."""
    floors = [
        {
            "floor": each.trained.floor,
            "policy": each.folder,
            "learner": each.trained.name,
            "best_fixed": each.best_fixed,
            "tested": _facts(each.worth),
            **({} if each.live is None else {"live": _facts(each.live)}),
        }
        for each in outcome.chosen
    ]
    places = {"profiles": outcome.profiles, "policies": [each.folder for each in outcome.chosen]}
    return {"run": outcome.run, **places, "report": outcome.report, "floors": floors}


def _facts(row: "ControllerRow") -> dict:
    names = ("prompts", "seeds", "ratio", "ratio_low", "ratio_high", "gain", "gain_low", "gain_high")
    return {name: getattr(row, name) for name in (*names, "violations", "mean_rise", "regret", "oracle_share")}


def run_controller_report(arguments: argparse.Namespace) -> int:
    from flows.cli import run_report
    from tasks.record.metrics import query

    latest = query("select run from runs where flow = 'controller' order by recorded_at desc limit 1")
    arguments.run_id = arguments.run_id or next((row["run"] for row in latest), None)
    if arguments.run_id is None:
        raise ValueError("run: no controller was trained yet; `espalier controller train --model builtin` trains one")
    return run_report(arguments)

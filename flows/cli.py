"""The command line: `espalier <flow> …` runs a flow; `report`, `runs` and `sql` read what runs have left.

Results go to stdout, everything else to stderr. Exit code 0: done; 2: a mistake in the words, one line that names the
field and lists what it may be; 1: a stage failed, and the line says which one and how to go on.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flows.activation_words import say_activation
from flows.answer_words import say_generate, say_serve
from flows.comparing import run_compare, run_runs, say_compare, say_runs
from flows.controller_words import PURPOSE, say_controller
from flows.environment import use_project_settings
from flows.evaluate_words import run_evaluate, say_evaluate
from flows.generating import run_generate
from flows.iterative_words import run_iterative, say_iterative
from flows.planning import PLAN, say_plan
from flows.profile_words import run_profiles, say_profiles
from flows.promoting import run_promote, say_promote
from flows.rebuilding import run_rebuild, say_rebuild
from flows.server import prefect_server
from flows.serving import run_serve
from flows.terminal import outcome_json, say, show_end, show_rows
from flows.up import run_up, say_up
from flows.words import Words, say_oneshot, say_slice, say_sweep

if TYPE_CHECKING:
    from flows.outcome import Outcome


def main(argv: Sequence[str] | None = None) -> int:
    use_project_settings()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = build_parser().parse_args(words)
        return arguments.run(arguments)
    except ValueError as mistake:
        say(str(mistake))
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1 if isinstance(error, ConnectionError) else 2
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept, the same command goes on from there")
        return 130
    except RuntimeError as failure:
        say(str(failure))
        say("what was finished is kept, the same command goes on from there")
        return 1


def build_parser() -> Words:
    parser = Words(prog="espalier", description="Prune a language model, and know what it cost.")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], purpose: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=purpose, description=purpose)
        made.set_defaults(run=run)
        return made

    say_oneshot(command("oneshot", run_oneshot, "prune a model in one pass, pack it, score it, register it"))
    say_slice(command("slice", run_slice, "cut units out of a model, repair the rest, score it, register it"))
    say_iterative(command("iterative", run_iterative, "cut a model in stages and train it between them"))
    say_activation(command("activation", run_activation, "let linears read a part of their inputs, token by token"))
    say_profiles(command("profiles", run_profiles, "make cuts of a model, to switch between them in place"))
    say_controller(commands.add_parser("controller", help=PURPOSE, description=PURPOSE))
    say_generate(command("generate", run_generate, "answer a prompt with as much of the model as it needs"))
    say_serve(command("serve", run_serve, "answer on loopback, as OpenAI's interface has it"))
    say_evaluate(command("evaluate", run_evaluate, "ask a model the questions of benchmarks, beside the dense one"))
    say_sweep(command("sweep", run_sweep, "run a grid and compare its points on one page"))

    made = command("report", run_report, "write a run's page anew from the stored rows")
    made.add_argument("run_id", nargs="?", metavar="RUN", help="a run or a sweep; the latest if not given")

    say_plan(commands.add_parser("plan", help=PLAN, description=PLAN))
    say_runs(command("runs", run_runs, "list the runs, the latest first, or say what one came of"))
    say_compare(command("compare", run_compare, "hold two runs, or two registered versions, side by side"))
    say_promote(command("promote", run_promote, "move an alias to a version that passes every gate"))
    say_rebuild(command("rebuild", run_rebuild, "make a version once more, and compare its bytes"))
    made = command("sql", run_sql, "ask the stored rows; the statement 'show tables' lists the tables")
    made.add_argument("statement", help='such as "select pattern, method, ppl from evaluations"')
    say_up(command("up", run_up, "start Prefect's server and a worker, and MLflow, on loopback"))
    return parser


def run_oneshot(arguments: argparse.Namespace) -> int:
    from flows.parameters import oneshot_of
    from flows.prepare import prepare

    parameters = oneshot_of(arguments)
    prepare(parameters)  # before a server is started for it

    from flows.oneshot import oneshot

    return run_flow(lambda: oneshot(parameters), arguments.json)


def run_slice(arguments: argparse.Namespace) -> int:
    from flows.parameters import slice_of
    from flows.prepare import prepare_slice

    parameters = slice_of(arguments)
    prepare_slice(parameters)  # before a server is started for it

    from flows.slice import slice_model

    return run_flow(lambda: slice_model(parameters), arguments.json)


def run_activation(arguments: argparse.Namespace) -> int:
    from flows.activation_choices import activation_of
    from flows.prepare import prepare_activation

    parameters = activation_of(vars(arguments))
    prepare_activation(parameters)  # before a server is started for it

    from flows.activation import sparsify_inputs

    return run_flow(lambda: sparsify_inputs(parameters), arguments.json)


def run_flow(start: Callable[[], "Outcome"], aside: bool) -> int:
    """Run a flow beside a server, and say what came of it; `aside` of the JSON object that a program reads."""
    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = start()
    show_end(outcome.run, outcome.report, aside, outcome.checkpoint)
    if aside:
        print(json.dumps(outcome_json(outcome)))
    return 0


def run_sweep(arguments: argparse.Namespace) -> int:
    from flows.parameters import sweep_of
    from flows.prepare import check_points

    parameters = sweep_of(arguments)
    check_points(parameters.points)

    from flows.runners import Running
    from flows.sweep import sweep_on

    running = Running.parse(**{name: getattr(arguments, name) for name in Running.model_fields})
    running.check()
    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = sweep_on(parameters, running)
    show_end(outcome.run, outcome.report, arguments.json)
    if arguments.json:
        points = [outcome_json(point) for point in outcome.outcomes]
        print(json.dumps({"run": outcome.run, "report": outcome.report, "points": points}))
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    from tasks.record.metrics import query, query_named
    from tasks.record.pages.report import write_report
    from tasks.record.pages.results import markdown_table
    from tasks.record.pages.titles import how_many, is_finished

    latest = query("select coalesce(sweep, run) as run from runs order by recorded_at desc limit 1")
    run = arguments.run_id or next((row["run"] for row in latest), None)
    if run is None:
        raise ValueError("run: nothing is recorded yet; `espalier sweep --preset demo` makes a first run")
    runs = query_named("scope", run=run)
    if not runs:
        raise ValueError(f"run: {run!r} is not recorded; `espalier runs` lists what is")
    if runs[0]["sweep"] == run and not is_finished(runs):
        say(f"sweep {run}: {how_many(runs)}")
    page = write_report(run)
    print(markdown_table(run))
    print(page)
    return 0


def run_sql(arguments: argparse.Namespace) -> int:
    from tasks.record.metrics import ask

    show_rows(ask(arguments.statement))
    return 0


if __name__ == "__main__":
    sys.exit(main())

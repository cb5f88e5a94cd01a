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

from flows.environment import use_project_settings
from flows.server import prefect_server
from flows.terminal import outcome_json, say, show_end, show_rows

if TYPE_CHECKING:
    from flows.choices import Oneshot


class Words(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise ValueError(message)


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

    made = command("oneshot", run_oneshot, "prune a model in one pass, pack it, score it, register it")
    made.add_argument("--model", default="builtin", help="a folder, a name on the hub, or 'builtin' (the default)")
    made.add_argument(
        "--pruner",
        required=True,
        help="magnitude, wanda, ria, clearcut, sparsegpt or FILE.py:Class; options follow: sparsegpt,damp=0.02; "
        "none prunes nothing, beside --low-rank svd",
    )
    made.add_argument("--pattern", required=True, help="2:4 (any n:m), 50%% (of each row) or 50%%@matrix")
    made.add_argument(
        "--update",
        help="of the weights that stay: none (as they were; for sparsegpt: without its sweep), sweep, refit; options "
        "follow: refit,drift=0.5",
    )
    made.add_argument("--permute", action="store_true", help="order the inputs of each linear so that n:m keeps more")
    made.add_argument(
        "--low-rank",
        nargs="?",
        const="",
        help="two factors: 0.25 (that share of the bytes, beside the zeros), svd or activation_svd (in place of the "
        "weights); options follow: svd,rank=64,linears=q_proj+o_proj",
    )
    made.add_argument(
        "--reconstruct", nargs="?", const="", help="tune each block once it is pruned; options: epochs=10,rate=0.001"
    )
    made.add_argument("--allocation", default="uniform", help="sparsity per block: uniform, owl or a JSON file")
    made.add_argument(
        "--calibration", default="docs", metavar="SOURCE", help="a source's name (docs), or FILE[first:last]"
    )
    made.add_argument(
        "--evaluation", default="docs", metavar="SOURCE", help="the same (docs); .txt, .jsonl or .parquet files"
    )
    made.add_argument("--samples", default=128, help="calibration windows (128)")
    made.add_argument("--window", help="tokens of a window (2048, or the model's context if that is shorter)")
    made.add_argument("--sampling", default="random", help="which windows: random (seeded) or first")
    made.add_argument(
        "--order", default="block", help="calibrate a block at once, or group by group in one pass: group"
    )
    made.add_argument("--seed", default=0, help="of the sampling (0)")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    made.add_argument("--no-speed", dest="speed", action="store_false", help="do not time the models")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")

    made = command("sweep", run_sweep, "run a grid and compare its points on one page")
    made.add_argument("--preset", required=True, help="demo, patterns, methods, …")
    made.add_argument("--model", action="append", default=[], help="instead of the preset's; several may be given")
    made.add_argument("--calibration", metavar="SOURCE", help="instead of the preset's")
    made.add_argument("--evaluation", metavar="SOURCE", help="instead of the preset's")
    made.add_argument("--samples", help="calibration windows, instead of the preset's")
    made.add_argument("--window", help="tokens of a window, instead of the preset's")
    made.add_argument("--seed", help="of the sampling, instead of the preset's")
    made.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")

    made = command("report", run_report, "write a run's page anew from the stored rows")
    made.add_argument("run_id", nargs="?", metavar="RUN", help="a run or a sweep; the latest if not given")

    command("runs", run_runs, "list the runs, the latest first")
    made = command("sql", run_sql, "ask the stored rows; the tables are runs, stages, datasets, blocks, linears, …")
    made.add_argument("statement", help='such as "select pattern, method, ppl from evaluations"')
    command("up", run_up, "start Prefect's server and a worker, and MLflow, on loopback")
    return parser


def oneshot_of(arguments: argparse.Namespace) -> "Oneshot":
    """The words of `espalier oneshot` as the parameters of its flow. ValueError in one line."""
    from flows.choices import Oneshot
    from flows.methods import parse_allocation, parse_low_rank, parse_pruner, parse_reconstruct, parse_update

    taken = {name: value for name, value in vars(arguments).items() if name in Oneshot.model_fields}
    taken["pruner"] = parse_pruner(arguments.pruner)
    taken["update"] = None if arguments.update is None else parse_update(arguments.update)
    taken["low_rank"] = None if arguments.low_rank is None else parse_low_rank(arguments.low_rank)
    taken["reconstruct"] = None if arguments.reconstruct is None else parse_reconstruct(arguments.reconstruct)
    taken["allocation"] = parse_allocation(arguments.allocation)
    return Oneshot.parse(**taken)


def run_oneshot(arguments: argparse.Namespace) -> int:
    from flows.prepare import prepare

    parameters = oneshot_of(arguments)
    prepare(parameters)  # before a server is started for it

    from flows.oneshot import oneshot

    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = oneshot(parameters)
    show_end(outcome.run, outcome.report, arguments.json)
    if arguments.json:
        print(json.dumps(outcome_json(outcome)))
    return 0


def run_sweep(arguments: argparse.Namespace) -> int:
    from flows.prepare import prepare
    from flows.presets import sweep_named

    names = ("calibration", "evaluation", "samples", "window", "seed")
    changed = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    parameters = sweep_named(arguments.preset, arguments.model, **changed)
    for point in parameters.points:
        prepare(point)

    from flows.sweep import sweep

    with prefect_server() as interface:
        say(f"watch this run at {interface}")
        outcome = sweep(parameters)
    show_end(outcome.run, outcome.report, arguments.json)
    if arguments.json:
        points = [outcome_json(point) for point in outcome.outcomes]
        print(json.dumps({"run": outcome.run, "report": outcome.report, "points": points}))
    return 0


def run_report(arguments: argparse.Namespace) -> int:
    from tasks.record.metrics import query
    from tasks.record.report import markdown_table, write_report

    latest = query("select coalesce(sweep, run) as run from runs order by recorded_at desc limit 1")
    run = arguments.run_id or next((row["run"] for row in latest), None)
    if run is None:
        raise ValueError("run: nothing is recorded yet; `espalier sweep --preset demo` makes a first run")
    if not query("select 1 from runs where run = $run or sweep = $run limit 1", {"run": run}):
        raise ValueError(f"run: {run!r} is not recorded; `espalier runs` lists what is")
    page = write_report(run)
    print(markdown_table(run))
    print(page)
    return 0


def run_runs(arguments: argparse.Namespace) -> int:
    from tasks.record.listing import runs_table

    print(runs_table(), end="")
    return 0


def run_sql(arguments: argparse.Namespace) -> int:
    from tasks.record.metrics import ask

    show_rows(ask(arguments.statement))
    return 0


def run_up(arguments: argparse.Namespace) -> int:
    from flows.up import up

    return up()


if __name__ == "__main__":
    sys.exit(main())

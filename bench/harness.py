"""`python -m bench.harness`: the time of 1,000 requests of a benchmark, ours beside plain lm-eval.

Both have the same model in memory, the same tokenizer, the same questions from local files, the same batches, and take
turns. Plain lm-eval is `simple_evaluate` without its index of all task files, which takes it ten seconds to read. Each
model and task is a line of `<results>/harness.jsonl`, with the ratio of the times, its interval, and whether the scores
are the same to the last digit. harness.md is written from the last start's lines, by `--table` without measuring.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.lines import add_options, last_start
from bench.models import DATA
from bench.texts import MODELS, add_line, present, read_lines
from bench.timing import interleave, paired_ratio
from tasks.evaluate.answers import Answers
from tasks.evaluate.harness import answer
from tasks.evaluate.suites import Asking, Benchmark
from tasks.evaluate.task_files import ASKED, find, write_rows
from tasks.model.load import load_model, load_tokenizer
from tasks.network import offline
from tasks.record.provenance import machine, versions

PLAIN = {  # the local files as anybody would describe them to lm-eval, and how many choices a question has
    "arc_easy": ("{{query}}\nAnswer:", "{{choices}}", "{{gold}}", 4),
    "hellaswag": ("{{ctx}}", "{{endings}}", "{{label}}", 4),
    "openbookqa": ("{{query}}", "{{choices}}", "{{gold}}", 4),
}
REQUESTS = 1000


def main() -> None:
    choice = parse(sys.argv[1:])
    file = choice.results / "harness.jsonl"
    if not choice.table:
        torch.set_num_threads(choice.threads)
        run(file, choice)
    text = markdown(read_lines(file))
    (choice.results / "harness.md").write_text(text, encoding="utf-8")
    print(text)


def run(file: Path, choice: argparse.Namespace) -> None:
    """A line about the circumstances, then one for each model and task."""
    facts = {"command": shlex.join(["python", "-m", "bench.harness", *sys.argv[1:]]), "machine": machine()}
    facts |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "versions": versions()}
    facts |= {"threads": choice.threads, "requests": choice.requests, "batch": choice.batch, "rounds": choice.rounds}
    add_line(file, facts)
    for name in choice.models:
        folder = MODELS[name][0]
        for task in choice.tasks:
            line = measure(load_model(folder), load_tokenizer(folder), task, choice)
            add_line(file, {"model": name, "task": task} | line)
            print(json.dumps(line), file=sys.stderr)


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str, choice: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of 1,000 requests on both sides and their ratio, plain by ours: above 1 ours is faster."""
    limit = choice.requests // PLAIN[task][-1]
    questions = find(DATA, task)[ASKED]
    with TemporaryDirectory() as place:
        write_rows(task, {ASKED: str(questions)}, Path(place))
        asking = Asking(benchmark=Benchmark(task=task), limit=limit, batch=choice.batch, chat=False, seed=0)
        found: dict[str, Any] = {}

        def ours() -> None:
            found["ours"] = answer(model, tokenizer, asking, Path(place))

        def plain() -> None:
            found["plain"] = plain_scores(model, tokenizer, task, questions, limit, choice.batch, Path(place))

        ours()
        plain()
        times = interleave({"ours": ours, "plain": plain}, choice.rounds)
    ratio = paired_ratio(times["plain"], times["ours"])
    requests = limit * PLAIN[task][-1]
    return {
        "requests": requests,
        "ours_s": REQUESTS / requests * sorted(times["ours"])[choice.rounds // 2],
        "plain_s": REQUESTS / requests * sorted(times["plain"])[choice.rounds // 2],
        "ratio": ratio.mean,
        "low": ratio.low,
        "high": ratio.high,
        "same_scores": scores_of(found["ours"]) == found["plain"],
    }


def plain_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    questions: Path,
    limit: int,
    batch: int,
    place: Path,
) -> dict[str, float]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    text, choices, target, _ = PLAIN[task]
    described = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}, "cache_dir": str(place / "plain")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": text,
        "doc_to_choice": choices,
        "doc_to_target": target,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }
    with offline():
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch),
            tasks=[described],
            task_manager=TaskManager(include_defaults=False),
            limit=limit,
        )
    return {name: found["results"][task][f"{name},none"] for name in ("acc", "acc_norm")}


def scores_of(answers: Answers) -> dict[str, float]:
    return {score.metric: score.value for score in answers.scores}


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The models and tasks of the last start."""
    start, measured = last_start(lines)
    return "\n".join(
        [
            "# lm-eval, through a stage of ours and plain",
            "",
            f"{start['date']}, `{start['command']}`. Seconds of 1,000 requests, the median of {start['rounds']} rounds",
            f"in turns, of {start['requests']} requests in batches of {start['batch']}, {start['threads']} threads.",
            "Both read the questions from the same local files, with the model in memory. Plain is `simple_evaluate`",
            "without the ten seconds that it takes to read all of lm-eval's task files. Above 1 ours is faster; the",
            "interval is of 95 %. The same scores are the same to the last digit.",
            f"Machine: {start['machine']}.",
            "",
            "| model | task | ours, s | plain, s | times faster | same scores |",
            "| --- | --- | ---: | ---: | --- | --- |",
            *map(_row, measured),
            "",
        ]
    )


def _row(line: dict[str, Any]) -> str:
    ratio = f"{line['ratio']:.2f} ({line['low']:.2f} to {line['high']:.2f})"
    cells = [line["model"], line["task"], f"{line['ours_s']:.2f}", f"{line['plain_s']:.2f}", ratio]
    return f"| {' | '.join([*cells, 'yes' if line['same_scores'] else 'no'])} |"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.harness", description=__doc__)
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=[each for each in present() if each != "stories260K"]
    )
    parser.add_argument("--tasks", nargs="+", choices=PLAIN, default=[*PLAIN])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of a measurement (1000)")
    parser.add_argument("--rounds", type=int, default=6, help="in which both sides are measured (6)")
    parser.add_argument("--batch", type=int, default=8)
    add_options(parser, threads=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

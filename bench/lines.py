"""Benchmarks that store lines: their options, and pages made from the lines that are there."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from bench.texts import MODELS, read_lines

RESULTS = Path(__file__).parent / "results"


def file_of_lines(results: Path, name: str, model: str) -> Path:
    return results / f"{name}-{model}.jsonl"


def run_models(
    name: str,
    choice: argparse.Namespace,
    run: Callable[[str, argparse.Namespace], None],
    markdown: Callable[[Mapping[str, Sequence[dict[str, Any]]]], str],
) -> None:
    """`run` each chosen model, which adds to its lines; then write `<name>.md` from all that there are, and print it.

    `choice` has the models, and what `add_options` adds.
    """
    torch.set_num_threads(choice.threads)
    logging.disable_progress_bar()
    if not choice.table:
        for model in choice.models:
            run(model, choice)
    files = {model: file_of_lines(choice.results, name, model) for model in MODELS}
    text = markdown({model: read_lines(file) for model, file in files.items() if file.exists()})
    (choice.results / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def add_options(parser: argparse.ArgumentParser, threads: int = 1) -> None:
    """What every benchmark takes that stores lines."""
    parser.add_argument("--threads", type=int, default=threads, help=f"of torch ({threads})")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the lines (bench/results)")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table")


def last_start(lines: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """The line of the last start, which has its command, and the lines after it."""
    last = max(number for number, line in enumerate(lines) if "command" in line)
    return lines[last], lines[last + 1 :]

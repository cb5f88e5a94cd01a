"""Questions of benchmarks that lie in local files, brought into the form that lm-eval's own tasks read.

lm-eval has the wording, the choices and the metrics of each task, written for the rows of a data set on the hub. A
description here says how a row of a local file becomes such a row: then the prompts are lm-eval's own, letter by
letter, and scores are comparable with anybody's, but for `social_iqa`, of which the local rows have two of the three
answers. Nothing of a task is written anew.

The files: the in-context-learning form of llm-foundry (`query`, `choices`, `gold`), HellaSwag's rows with their text
cleaned, GLUE's and TruthfulQA's and MMLU's tables, AGIEval's own rows, the raw text of WikiText.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ASKED, SHOWN = "asked", "shown"  # the questions, and the solved examples that may stand before them
LETTERS = "ABCDEFG"


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """Of one task: how the path of its file ends, what a row of it is on the hub, and what lm-eval's task must change.

    `shown`: the path of the examples, where the task takes them from other rows than it asks.
    """

    file: str
    row: Callable[[Row], Row]
    shown: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def arc(row: Row) -> Row:
    return {"question": row["query"].removeprefix("Question: "), **_lettered(row)}


def open_book(row: Row) -> Row:
    return {"question_stem": row["query"], **_lettered(row)}


def hellaswag(row: Row) -> Row:
    """What lm-eval makes of the hub's row before it asks; here the text is clean already."""
    return {"query": row["ctx"], "choices": row["endings"], "label": str(row["label"])}


def piqa(row: Row) -> Row:
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, **_named(row["choices"], "sol1", "sol2"), "label": row["gold"]}


def winogrande(row: Row) -> Row:
    """Where the options meet the rest of the sentence is an underscore on the hub."""
    options = _named(row["context_options"], "option1", "option2")
    return {"sentence": f"_ {row['continuation']}", **options, "answer": str(row["gold"] + 1)}


def social_iqa(row: Row) -> Row:
    """llm-foundry kept two of the three answers."""
    form = r"Context: (.*)\nQuestion: (.*)\nChoices:\nA\. (.*)\nB\. (.*)\nAnswer:"
    found = re.fullmatch(form, row["query"], re.DOTALL)
    if found is None:
        raise ValueError("its query has no context, question and two choices")
    return _named(found.groups(), "context", "question", "answerA", "answerB") | {"label": str(row["gold"] + 1)}


def boolq(row: Row) -> Row:
    passage, _, question = row["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    return {"passage": passage, "question": question.removesuffix("?"), "label": row["gold"]}


def copa(row: Row) -> Row:
    premise, _, connector = row["query"].rpartition(", ")
    asks = {"because": "cause", "therefore": "effect"}[connector]
    choices = _named(row["choices"], "choice1", "choice2")
    return {"premise": f"{premise}.", "question": asks, **choices, "label": row["gold"]}


def lambada(row: Row) -> Row:
    return {"text": f"{row['context']} {row['continuation']}"}


def rte(row: Row) -> Row:
    return {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": int(row["label"])}


def mnli(row: Row) -> Row:
    label = ("entailment", "neutral", "contradiction").index(row["gold_label"])
    return {"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": label}


def truthful(row: Row) -> Row:
    right, wrong = ([each.strip() for each in row[f"{kind} Answers"].split(";")] for kind in ("Correct", "Incorrect"))
    best = [row["Best Answer"].strip()]
    targets = {name: _targets(true, wrong) for name, true in (("mc1_targets", best), ("mc2_targets", right))}
    return {"question": row["Question"], **targets}


def agieval(row: Row) -> Row:
    """The question in AGIEval's own words for zero examples (arXiv:2304.06364), as the hub's rows have it."""
    options = row["options"]
    words = f"{row['passage'] or ''}Q: {row['question']} Answer Choices: {' '.join(options)}\n"
    query = f"{words}A: Among A through {LETTERS[len(options) - 1]}, the answer is"
    return {"query": query, "choices": options, "gold": [LETTERS.index(row["label"])]}


def mmlu(row: Row) -> Row:
    choices = [row[f"choice{number}"] for number in range(4)]
    return {"question": row["question"], "choices": choices, "answer": int(row["answer"])}


def page(row: Row) -> Row:
    return row


TASK_FILES: dict[str, TaskFile] = {
    "arc_easy": TaskFile(file="arc_easy.jsonl", row=arc),
    "arc_challenge": TaskFile(file="arc_challenge.jsonl", row=arc),
    "hellaswag": TaskFile(file="hellaswag_val_full.jsonl", row=hellaswag, changes={"process_docs": None}),
    "openbookqa": TaskFile(file="openbook_qa.jsonl", row=open_book),
    "piqa": TaskFile(file="piqa.jsonl", row=piqa),
    "winogrande": TaskFile(file="winogrande.jsonl", row=winogrande),
    "social_iqa": TaskFile(file="siqa.jsonl", row=social_iqa, changes={"doc_to_choice": "{{[answerA, answerB]}}"}),
    "boolq": TaskFile(file="boolq.jsonl", row=boolq),
    "copa": TaskFile(file="copa.jsonl", row=copa),
    "rte": TaskFile(file="rte/dev.tsv", row=rte),
    "mnli": TaskFile(file="mnli/dev_matched.tsv", row=mnli),
    "lambada_openai": TaskFile(file="lambada_openai.jsonl", row=lambada),
    "truthfulqa_mc1": TaskFile(file="TruthfulQA.csv", row=truthful),
    "truthfulqa_mc2": TaskFile(file="TruthfulQA.csv", row=truthful),
    "agieval_sat_en_without_passage": TaskFile(
        file="agieval/sat-en.jsonl", row=lambda row: agieval(row | {"passage": None})
    ),
    "wikitext": TaskFile(file="wikitext2_test.raw.txt", row=page),
}


def described(task: str) -> TaskFile:
    """The description of a task. Raises ValueError that lists what there is."""
    if task in TASK_FILES:
        return TASK_FILES[task]
    if subject := _after("mmlu_", task):
        return TaskFile(file=f"mmlu/test/{subject}_test.csv", shown=f"mmlu/dev/{subject}_dev.csv", row=mmlu)
    if part := _after("agieval_", task):
        return TaskFile(file=f"agieval/{part.replace('_', '-')}.jsonl", row=agieval)
    raise ValueError(f"tasks_data: local files are known of {', '.join(TASK_FILES)}, mmlu and agieval_nous, not {task}")


def find(folder: Path, task: str) -> dict[str, Path]:
    """ASKED and, of a task that has it, SHOWN -> the file, wherever it lies below `folder`.

    Raises ValueError for a folder, a file or a description that is not there, and for two files of one name.
    """
    if not folder.is_dir():
        raise ValueError(f"tasks_data: {folder} is not a folder")
    known = described(task)
    ends = {ASKED: known.file} | ({SHOWN: known.shown} if known.shown else {})
    return {role: _only(folder, end, task) for role, end in ends.items()}


def content_of(files: Mapping[str, Path]) -> str:
    """SHA-256, in hex, over the bytes of the files in the order of their roles."""
    digest = hashlib.sha256()
    for role in sorted(files):
        digest.update(hashlib.sha256(files[role].read_bytes()).digest())
    return digest.hexdigest()


def write_rows(task: str, files: Mapping[str, str], folder: Path) -> None:
    """Write the rows of each file as `<task>.<role>.jsonl` into `folder`."""
    for role, file in files.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(task, Path(file)))
        (folder / f"{task}.{role}.jsonl").write_text("".join(lines), encoding="utf-8")


def rows_of(task: str, file: Path) -> Iterator[Row]:
    """The rows of a file as lm-eval's task reads them. ValueError names the row that is not of the form described."""
    known = described(task)
    for number, row in enumerate(_read(file), start=1):
        try:
            yield known.row(row)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"tasks_data: row {number} of {file} is none of {task}: {error!r}") from error


def _read(file: Path) -> Iterator[Row]:
    text = file.read_text(encoding="utf-8-sig")
    match file.suffix:
        case ".jsonl":
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
        case ".csv":
            yield from csv.DictReader(StringIO(text, newline=""))
        case ".tsv":  # GLUE quotes nothing
            yield from csv.DictReader(StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        case _:
            yield from ({"page": each} for each in _pages(text))


def _pages(text: str) -> Iterator[str]:
    """WikiText in articles: one begins at a line ` = Title = ` with no further sign of equality at its ends."""
    lines: list[str] = []
    for line in text.split("\n"):
        if re.fullmatch(r"\s*= (?!=).*(?<!=) =\s*", line):
            if "".join(lines).strip():
                yield "\n".join(lines)
            lines = []
        lines.append(line)
    yield "\n".join(lines)


def _only(folder: Path, end: str, task: str) -> Path:
    match sorted(folder.rglob(end)):
        case [file]:
            return file
        case []:
            raise ValueError(f"tasks_data: no {end} below {folder}, which {task} needs")
        case several:
            raise ValueError(
                f"tasks_data: {end}, which {task} needs, is there more than once: {', '.join(map(str, several))}"
            )


def _lettered(row: Row) -> Row:
    choices = {"text": row["choices"], "label": list(LETTERS[: len(row["choices"])])}
    return {"choices": choices, "answerKey": LETTERS[row["gold"]]}


def _named(values: Any, *names: str) -> Row:
    return dict(zip(names, values, strict=True))


def _targets(true: list[str], wrong: list[str]) -> Row:
    return {"choices": [*true, *wrong], "labels": [1] * len(true) + [0] * len(wrong)}


def _after(prefix: str, name: str) -> str:
    return name.removeprefix(prefix) if name.startswith(prefix) else ""

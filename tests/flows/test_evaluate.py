"""The whole run of `evaluate` on tiny models, with a real server, real files and a real registry."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.choices import Oneshot
from flows.cli import build_parser, main
from flows.evaluate import EvaluateOutcome, evaluate_benchmarks
from flows.evaluate_choices import Evaluate
from flows.methods import parse_pruner
from flows.oneshot import oneshot
from tasks.model.load import fingerprint
from tasks.record.registry.tracking import tracking
from tests.flows.conftest import WORDS
from tests.flows.runs import rows_of, sharing, stages_of


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of twelve questions each, in words that the tiny model's tokenizer knows."""
    folder = tmp_path_factory.mktemp("questions")
    turned = [WORDS[first : first + 2] for first in range(12)]
    rows = [{"query": "Question: the tree", "choices": pair, "gold": n % 2} for n, pair in enumerate(turned)]
    (folder / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"context": "the tree grows", "continuation": word} for word in WORDS[:12]]
    (folder / "lambada_openai.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def runs(
    server: str, tiny_model: Path, stories: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict]:
    """A model that is pruned, and asked: itself, packed, the dense one alone and beside the packed one."""
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "samples": 4, "window": 32}
    how = {"model": str(tiny_model), "pruner": parse_pruner("magnitude"), "pattern": "2:4", "speed": False}
    words = {"suite": "piqa,lambada_openai", "tasks_data": str(questions), "limit": 8}
    with sharing(server, tmp_path_factory.mktemp("evaluate") / "artifacts"):
        made = oneshot(Oneshot.parse(**how, **texts))
        asked = {
            "packed": Evaluate.parse(model=str(made.packed), keep_samples=True, **words),
            "again": Evaluate.parse(model=str(made.packed), keep_samples=True, **words),
            "alone": Evaluate.parse(model=str(tiny_model), **words),
            "beside": Evaluate.parse(model=made.checkpoint, dense=str(tiny_model), **words),
        }
        yield {"made": made} | {name: evaluate_benchmarks(parameters) for name, parameters in asked.items()}


def test_a_stored_model_is_asked_beside_the_one_it_was_made_of(runs: dict, tiny_model: Path):
    outcome: EvaluateOutcome = runs["packed"]
    rows = rows_of("benchmarks", outcome)
    assert len(rows) == 2 * (2 + 2)
    hashes = {row["subject"]: row["checkpoint"] for row in rows}
    assert hashes == {"dense": fingerprint(tiny_model), "pruned": Path(runs["made"].packed).name}
    assert {(row["method"], row["pattern"], row["limited_to"], row["examples"]) for row in rows} == {
        ("magnitude", "2:4", 8, 8)
    }
    assert {row["chance"] for row in rows if row["task"] == "piqa"} == {0.5}
    assert {row["chance"] for row in rows if row["task"] == "lambada_openai"} == {None}
    hashes_of_questions = {(row["task"], row["dataset_hash"]) for row in rows}
    assert len(hashes_of_questions) == 2
    assert len(outcome.samples) == 4
    kept = {row["hash"] for row in rows_of("artifacts", outcome) if row["kind"] == "samples"}
    assert kept == {Path(folder).name for folder in outcome.samples}


def test_a_second_run_is_all_cache_hits_and_has_rows_of_its_own(runs: dict):
    assert not any(stages_of(runs["packed"]).values())
    assert all(stages_of(runs["again"]).values())
    own = {"run", "recorded_at"}
    first, second = (
        [{name: value for name, value in row.items() if name not in own} for row in rows_of("benchmarks", runs[run])]
        for run in ("packed", "again")
    )
    assert len(second) == 8
    assert sorted(first, key=str) == sorted(second, key=str)


def test_packed_and_unpacked_score_the_same_to_the_last_digit(runs: dict):
    scores = [
        {(row.subject, row.task, row.metric): row.value for row in runs[name].rows} for name in ("packed", "beside")
    ]
    assert scores[0] == scores[1]


def test_of_a_model_that_no_row_knows_nothing_stands_beside_it(runs: dict):
    assert {row["subject"] for row in rows_of("benchmarks", runs["alone"])} == {"given"}
    assert {row["method"] for row in rows_of("benchmarks", runs["alone"])} == {"evaluate"}
    stages = stages_of(runs["alone"])
    assert stages["gather piqa"]
    assert "piqa of the given model" in stages


def test_the_page_and_mlflow_have_the_scores(runs: dict):
    page = Path(runs["packed"].report).read_text(encoding="utf-8")
    assert "<h2>Benchmarks</h2>" in page
    assert page.count("<figure>") == 1
    assert "of each task the first 8" in page
    value = next(row.value for row in runs["packed"].rows if (row.subject, row.metric) == ("dense", "acc_norm"))
    with tracking() as client:
        [run] = client.search_runs(["1"], f"tags.run = '{runs['packed'].run}'")
    assert run.data.metrics["dense_piqa_acc_norm"] == value
    assert "lambada_openai_perplexity" in run.data.metrics


def test_the_command_of_a_run_repeats_it(runs: dict):
    [row] = rows_of("runs", runs["packed"])
    words = vars(build_parser().parse_args(shlex.split(row["command"])[1:]))
    again = Evaluate.parse(**{name: value for name, value in words.items() if name in Evaluate.model_fields})
    assert again == Evaluate.model_validate_json(row["parameters"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"suite": "zero"}, ("suite: 'zero'", "zero_shot, few_shot, wikitext")),
        ({"suite": "piqa,"}, ("suite", "empty name")),
        ({"suite": "piqa,rte"}, ("tasks_data: no rte/dev.tsv", "those of --suite piqa are there")),
        ({"tasks-data": "nowhere"}, ("tasks_data: nowhere is not a folder",)),
        ({"model": "questions"}, ("model", "config.json")),
        ({"model": "no-tokenizer"}, ("model", "has no tokenizer")),
        ({"dense": "no-such-model"}, ("dense: no-such-model",)),
        ({"dense": "tiny"}, ("dense", "are the same")),
        ({"limit": "0"}, ("limit", "0")),
        ({"batch": "0"}, ("batch", "0")),
        ({"chat": None}, ("chat", "no chat template")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(
    artifacts: Path,
    tiny_model: Path,
    questions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    changed: dict,
    says: tuple,
):
    bare = tmp_path / "no-tokenizer"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(tiny_model / name)
    places = {"questions": str(questions), "no-tokenizer": str(bare), "tiny": str(tiny_model)}
    words = {"model": str(tiny_model), "suite": "piqa", "tasks-data": str(questions)} | changed
    said = [
        [f"--{name}"] if value is None else [f"--{name}", places.get(value, value)] for name, value in words.items()
    ]
    assert main(["evaluate", *(word for words in said for word in words)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1), printed.err
    assert all(part in printed.err for part in says), printed.err
    assert not (artifacts / "store" / "questions").exists()

"""lm-eval as a stage: chance where a model knows nothing, and the digits of plain lm-eval on the same questions."""

import json
import math
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from tasks.evaluate.harness import answer, check_reachable, members
from tasks.evaluate.suites import Asking, Benchmark
from tasks.evaluate.task import answer_questions, gather_questions
from tasks.evaluate.task_files import find
from tasks.handles import Checkpoint
from tasks.model.load import BUILTIN, fingerprint, load_model, load_tokenizer
from tasks.network import offline
from tasks.record import home
from tasks.record.samples import FILE

CHOICES = ["red", "a long way round", "eighteen", "x"]
LIMIT = 8
MEAN = {"aggregation": "mean", "higher_is_better": True}
PLAIN: dict[str, dict[str, Any]] = {  # the real files as anybody would describe them to lm-eval
    "arc_easy": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
    "lambada_openai": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{' ' + continuation}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", **MEAN},
        ],
    },
}


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "artifacts"


def asking(task: str, **changes: Any) -> Asking:
    how = {"limit": None, "batch": 8, "chat": False, "seed": 0} | changes
    return Asking(benchmark=Benchmark(task=task, few_shot=how.pop("few_shot", 0)), **how)


def balanced(folder: Path) -> Path:
    """Each order of the choices with each of them for the right one: no fixed preference scores more than chance."""
    turned = [CHOICES[turn:] + CHOICES[:turn] for turn in range(4)]
    rows = [{"query": "Question: which?", "choices": turn, "gold": gold} for turn, gold in product(turned, range(4))]
    file = folder / "arc_easy.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def zeroed(folder: Path) -> Checkpoint:
    """A model of which every weight is zero, stored."""
    model = load_model(BUILTIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / name, folder)
    return Checkpoint(hash=fingerprint(folder), folder=str(folder))


def test_a_model_that_knows_nothing_scores_chance(tmp_path: Path):
    file = balanced(tmp_path)
    checkpoint = zeroed(tmp_path / "zeroed")
    questions = gather_questions.fn(tasks={"arc_easy": {"asked": str(file)}}, content="")
    how = {"questions": questions, "samples": True, "harness": "", "device": "cpu"}
    made = answer_questions.fn(checkpoint=checkpoint, asking=asking("arc_easy", batch=3), **how)
    assert [row.metric for row in made.rows] == ["acc", "acc_norm"]
    for row in made.rows:
        assert row.chance == 0.25
        assert row.stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 15))  # of 16 questions, unbiased
        assert abs(row.value - row.chance) <= row.stderr
        assert (row.checkpoint, row.examples, row.requests) == (checkpoint.hash, 16, 64)
        assert (row.few_shot, row.batch, row.shortened, row.subject) == (0, 3, 0, "given")
    kept = pq.read_table(home.locate(made.samples.folder) / FILE).to_pylist()
    assert [sample["example"] for sample in kept] == list(range(16))
    assert kept[0]["contexts"] == ["Question: which?\nAnswer:"] * 4
    assert kept[1]["continuations"] == [f" {choice}" for choice in CHOICES]
    log_probability = json.loads(kept[0]["replies"][3])[0]  # of one token
    assert log_probability == pytest.approx(-math.log(load_model(BUILTIN).config.vocab_size), rel=1e-6)


@pytest.mark.parametrize("task", PLAIN)
def test_the_scores_are_those_of_plain_lm_eval_to_the_last_digit(task: str, shared: Path, tmp_path: Path):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model, tokenizer = load_model(BUILTIN), load_tokenizer(BUILTIN)
    file = str(find(shared, task)["asked"])
    plain = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": file}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        **PLAIN[task],
    }
    with offline():
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
            tasks=[plain],
            task_manager=TaskManager(include_defaults=False),
            limit=LIMIT,
            bootstrap_iters=0,
        )
    questions = gather_questions.fn(tasks={task: {"asked": file}}, content="")
    ours = answer(model, tokenizer, asking(task, limit=LIMIT), home.locate(questions.folder))
    theirs = found["results"][task]
    assert {f"{score.metric},none": score.value for score in ours.scores} == {
        name: value for name, value in theirs.items() if name.endswith(",none") and "stderr" not in name
    }
    prompts = [[context for context, _ in sample["arguments"]] for sample in found["samples"][task]]
    assert [list(sample.contexts) for sample in ours.samples] == prompts


def test_a_group_is_scored_whole_and_task_by_task_with_examples_before_each_question(shared: Path):
    files = {part: find(shared, part) for part in members("mmlu")}
    tasks = {part: {role: str(file) for role, file in own.items()} for part, own in files.items()}
    questions = gather_questions.fn(tasks=tasks, content="")
    model, tokenizer = load_model(BUILTIN), load_tokenizer(BUILTIN)
    how = {"limit": 1, "few_shot": 1}
    ours = answer(model, tokenizer, asking("mmlu", **how), home.locate(questions.folder))
    whole, *parts = [score for score in ours.scores if score.metric == "acc"]
    assert (whole.task, whole.within, whole.chance, whole.few_shot, whole.examples) == ("mmlu", None, 0.25, 1, 57)
    single = [part for part in parts if part.examples == 1]
    assert len(single) == 57
    assert whole.value == pytest.approx(sum(part.value for part in single) / 57)
    assert {part.within for part in parts} == {"mmlu"}
    assert ours.samples[0].contexts[0].count("Answer:") == 2


def test_what_lm_eval_does_not_have_is_named_with_what_is_near():
    assert members("agieval_nous")[0] == "agieval_aqua_rat"
    assert members("arc_easy") == ("arc_easy",)


def test_without_a_network_questions_need_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match="tasks_data: none given, and the hub, where piqa is baber/piqa, does not answer"
    ):
        check_reachable("piqa")
    (tmp_path / "baber___piqa").mkdir()
    check_reachable("piqa")

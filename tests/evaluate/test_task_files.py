"""Rows of local files as lm-eval's tasks read them: forms, the real files, and mistakes that name the row."""

import json
from pathlib import Path

import pytest

from tasks.evaluate.task_files import ASKED, SHOWN, TASK_FILES, described, find, rows_of, write_rows

ROWS = {  # file, what is in it, and the row that the hub has of that question
    "arc_easy": (
        "arc_easy.jsonl",
        {"query": "Question: Which?", "choices": ["a", "b", "c"], "gold": 2},
        {"question": "Which?", "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "C"},
    ),
    "piqa": (
        "piqa.jsonl",
        {"query": "Question: dresser\n", "choices": ["x", "y"], "gold": 1},
        {"goal": "dresser", "sol1": "x", "sol2": "y", "label": 1},
    ),
    "winogrande": (
        "winogrande.jsonl",
        {"context_options": ["So Ann", "So Eve"], "continuation": "won.", "gold": 1},
        {"sentence": "_ won.", "option1": "So Ann", "option2": "So Eve", "answer": "2"},
    ),
    "social_iqa": (
        "siqa.jsonl",
        {"query": "Context: C.\nQuestion: Q?\nChoices:\nA. one\nB. two\nAnswer:", "choices": ["A", "B"], "gold": 0},
        {"context": "C.", "question": "Q?", "answerA": "one", "answerB": "two", "label": "1"},
    ),
    "boolq": (
        "boolq.jsonl",
        {"query": "Passage: P\nQuestion: no one.\nQuestion: is it?", "choices": ["no", "yes"], "gold": 1},
        {"passage": "P\nQuestion: no one.", "question": "is it", "label": 1},
    ),
    "copa": (
        "copa.jsonl",
        {"query": "The sun rose, because", "choices": ["x.", "y."], "gold": 0},
        {"premise": "The sun rose.", "question": "cause", "choice1": "x.", "choice2": "y.", "label": 0},
    ),
    "lambada_openai": (
        "lambada_openai.jsonl",
        {"context": "I do not", "continuation": "care"},
        {"text": "I do not care"},
    ),
    "agieval_sat_math": (
        "agieval/sat-math.jsonl",
        {"passage": None, "question": "x?", "options": ["(A)1", "(B)2"], "label": "B"},
        {
            "query": "Q: x? Answer Choices: (A)1 (B)2\nA: Among A through B, the answer is",
            "choices": ["(A)1", "(B)2"],
            "gold": [1],
        },
    ),
}
TABLES = {
    "mnli": (
        "mnli/dev_matched.tsv",
        'index\tsentence1\tsentence2\tgold_label\n0\tA "dog ran.\tIt moved\tentailment\n',
        {"premise": 'A "dog ran.', "hypothesis": "It moved", "label": 0},
    ),
    "rte": (
        "rte/dev.tsv",
        "sentence1\tsentence2\tlabel\tidx\nA.\tB.\t1\t0\n",
        {"sentence1": "A.", "sentence2": "B.", "label": 1},
    ),
    "mmlu_anatomy": (
        "mmlu/test/anatomy_test.csv",
        'question,choice0,choice1,choice2,choice3,answer\n"a, or\nb?",1,2,3,4,3\n',
        {"question": "a, or\nb?", "choices": ["1", "2", "3", "4"], "answer": 3},
    ),
    "truthfulqa_mc1": (
        "TruthfulQA.csv",
        "Question,Best Answer,Correct Answers,Incorrect Answers\nWhy?,No reason,No reason; None,Magic; Fate\n",
        {
            "question": "Why?",
            "mc1_targets": {"choices": ["No reason", "Magic", "Fate"], "labels": [1, 0, 0]},
            "mc2_targets": {"choices": ["No reason", "None", "Magic", "Fate"], "labels": [1, 1, 0, 0]},
        },
    ),
}
COUNTS = {"arc_easy": 2376, "hellaswag": 10042, "winogrande": 1267, "social_iqa": 1954, "boolq": 3270, "wikitext": 62}


def put(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("task", [*ROWS, *TABLES])
def test_a_row_becomes_the_one_that_the_hub_has(task: str, tmp_path: Path):
    name, content, expected = (ROWS | TABLES)[task]
    file = put(tmp_path / "deep" / "below", name, content if isinstance(content, str) else json.dumps(content))
    if described(task).shown:
        put(tmp_path, described(task).shown or "", content)
    assert find(tmp_path, task)[ASKED] == file
    assert list(rows_of(task, file)) == [expected]


def test_wikitext_is_cut_into_articles(tmp_path: Path):
    file = put(tmp_path, "wikitext2_test.raw.txt", " \n = One = \n \n a \n = = Part = = \n b \n = Two = \n c \n")
    pages = [row["page"] for row in rows_of("wikitext", file)]
    assert pages == [" = One = \n \n a \n = = Part = = \n b ", " = Two = \n c \n"]


def test_rows_are_written_a_file_for_each_role(tmp_path: Path):
    _, content, expected = TABLES["mmlu_anatomy"]
    file = put(tmp_path, "anatomy.csv", content)
    write_rows("mmlu_anatomy", {ASKED: str(file), SHOWN: str(file)}, tmp_path)
    for role in (ASKED, SHOWN):
        assert json.loads((tmp_path / f"mmlu_anatomy.{role}.jsonl").read_text(encoding="utf-8")) == expected


def test_what_is_missing_double_or_unknown_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"tasks_data: .* is not a folder"):
        find(tmp_path / "none", "rte")
    with pytest.raises(ValueError, match=r"tasks_data: no rte/dev.tsv below .*, which rte needs"):
        find(tmp_path, "rte")
    for place in ("a", "b"):
        put(tmp_path / place, "rte/dev.tsv", "")
    with pytest.raises(ValueError, match=r"rte/dev\.tsv, which rte needs, is there more than once"):
        find(tmp_path, "rte")
    with pytest.raises(ValueError, match=r"local files are known of arc_easy, .*, not gsm8k"):
        find(tmp_path, "gsm8k")


def test_a_row_of_another_form_is_named(tmp_path: Path):
    good = json.dumps(ROWS["piqa"][1])
    file = put(tmp_path, "piqa.jsonl", f'{good}\n{{"query": "Question: x"}}\n')
    with pytest.raises(ValueError, match=r"row 2 of .*piqa.jsonl is none of piqa: KeyError\('choices'\)"):
        list(rows_of("piqa", file))


def test_the_real_files_are_read_whole(shared: Path):
    for task in TASK_FILES.keys() - {"mnli"}:  # no real file of it
        rows = list(rows_of(task, find(shared, task)[ASKED]))
        assert len(rows) == COUNTS.get(task, len(rows)) > 50

"""The built-in text: what a document is, and that no docstring stands on both sides of the split."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import pytest

from tasks.data import docs
from tasks.data.docstrings import docstrings, strings_of_dict
from tasks.data.documents import count_bytes, hash_texts
from tasks.data.split import HELD_OUT, part_of

ROOT = Path(__file__).parents[2]
MANIFEST = json.loads(docs.MANIFEST.read_text(encoding="utf-8"))
SOURCE = '''"""Of the module."""
raise RuntimeError("read, never run")
class A:
    """Of the class.

        indented
    not
    """
    async def f(self):
        "Of the method."
        x = """not a docstring"""
if True:
    def g():
        r"""Of a function
        under a condition."""
'''


@pytest.fixture(scope="module")
def held_out() -> dict[str, list[str]]:
    return {part: docs.gather(part) for part in ("calibration", "evaluation")}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Instead of what is installed: {module path: docstrings}, each module in the part that its folder names."""

    def install(modules: dict[str, list[str]]) -> None:
        for name, texts in modules.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            functions = (f"def f{index}():\n    {text!r}\n" for index, text in enumerate(texts))
            path.write_text("".join(functions), encoding="utf-8")
        monkeypatch.setattr(docs, "modules", lambda part: sorted((tmp_path / part).rglob("*.py")))

    return install


def test_docstrings_come_in_the_order_of_the_source_and_nothing_runs(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE, encoding="utf-8")
    assert list(docstrings(path)) == [
        "Of the module.",
        "Of the class.\n\n    indented\nnot",
        "Of the method.",
        "Of a function\nunder a condition.",
    ]


def test_a_file_that_does_not_parse_has_no_docstrings(tmp_path):
    path = tmp_path / "template.py"
    path.write_text('"""Doc."""\nprint {{ name }}\n', encoding="utf-8")
    assert list(docstrings(path)) == []


def test_the_strings_of_a_dict(tmp_path):
    path = tmp_path / "topics.py"
    path.write_text('topics = {"if": "The if\\n  statement", "n": 3}\n', encoding="utf-8")
    assert list(strings_of_dict(path)) == ["The if\nstatement"]


def test_a_docstring_counts_once_and_the_evaluation_part_has_the_first_claim(package):
    long = {name: f"{name} in some part. " * 30 + "End." for name in ("everywhere", "training", "both", "evaluation")}
    package(
        {
            "train/a.py": [long["everywhere"], long["training"], long["both"]],
            "train/b.py": [long["training"]],
            "calibration/c.py": [long["everywhere"], long["both"]],
            "evaluation/d.py": [long["evaluation"], long["everywhere"], long["evaluation"]],
        }
    )
    assert docs.gather("train") == [long["training"]]
    assert docs.gather("calibration") == [long["both"]]
    assert docs.gather("evaluation") == [f"{long['evaluation']}\n\n{long['everywhere']}"]


def test_short_and_foreign_documents_are_left_out(package):
    package(
        {"evaluation/a.py": ["too short"], "evaluation/b.py": ["привет, мир! " * 50], "evaluation/c.py": ["x" * 200]}
    )
    assert docs.gather("evaluation") == ["x" * 200]


def test_the_manifest_holds_for_what_is_installed(held_out):
    if docs.versions() != MANIFEST["versions"]:
        pytest.skip("other versions are installed than docs.json was made with")
    for part, texts in held_out.items():
        expected = {"documents": len(texts), "bytes": count_bytes(texts), "sha256": hash_texts(texts)}
        assert MANIFEST["parts"][part] == expected


def test_the_manifest_is_of_the_pinned_versions():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    assert {name: pins[name] for name in HELD_OUT.values()} == MANIFEST["versions"]


def test_other_versions_are_said_plainly(held_out, monkeypatch):
    monkeypatch.setattr(docs, "gather", lambda part: held_out[part][:-1])
    monkeypatch.setattr(docs, "versions", lambda: MANIFEST["versions"] | {"numpy": "2.0.0"})
    with pytest.warns(UserWarning, match=f"evaluation part .* numpy 2.0.0 for {MANIFEST['versions']['numpy']}"):
        docs.read("evaluation")


def test_reading_what_the_manifest_knows_does_not_warn(recwarn):
    assert count_bytes(docs.read("evaluation")) > 300_000
    assert docs.versions() != MANIFEST["versions"] or not recwarn.list


def test_every_module_has_one_part_and_the_split_is_stable():
    parts = {part: {str(path) for path in docs.modules(part)} for part in ("train", "calibration", "evaluation")}
    assert not parts["train"] & parts["calibration"]
    assert not parts["train"] & parts["evaluation"]
    assert not parts["calibration"] & parts["evaluation"]
    assert all(len(files) > 50 for files in parts.values())
    assert part_of("json/decoder.py") == "train"
    assert part_of("networkx/algorithms/connectivity/edge_kcomponents.py") == "evaluation"


def hashes(part: str, workers: int = 1) -> set[str]:
    modules = docs.distinct(part, workers)
    return {hashlib.sha256(text.encode()).hexdigest() for module in modules for text in module}


def test_no_docstring_stands_in_two_parts(monkeypatch):
    """Training shortened to what is nearest to the held-out modules: the rest of one of their packages."""
    near = [path for path in docs.modules("train") if "networkx" in path.parts]
    small = {part: docs.modules(part) for part in ("calibration", "evaluation")} | {"train": near}
    monkeypatch.setattr(docs, "modules", small.__getitem__)
    monkeypatch.setattr(docs, "_read", cache(docs._read))
    train, calibration, evaluation = hashes("train"), hashes("calibration"), hashes("evaluation")
    assert min(len(train), len(calibration), len(evaluation)) > 500
    assert not train & calibration
    assert not train & evaluation
    assert not calibration & evaluation


@pytest.mark.slow
def test_no_docstring_of_the_whole_training_part_is_held_out():
    assert not hashes("train", workers=2) & (hashes("calibration") | hashes("evaluation"))


def test_an_unknown_part():
    with pytest.raises(ValueError, match="there is no part 'test'; choose one of train, calibration, evaluation"):
        docs.read("test")

"""Sources: names, files and slices read as they are written, and mistakes get one line."""

import json
import time
from importlib import metadata

import httpx2
import pytest
import torch
from datasets import Dataset, DatasetInfo, SplitInfo
from datasets.arrow_writer import ArrowWriter
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoTokenizer

from tasks.data import sources
from tasks.data.documents import hash_texts
from tasks.data.registry import SOURCES
from tasks.data.sources import Source, check_first_row, check_source, identity, parse_source, read
from tasks.data.tokens import encode, sample_windows


@pytest.fixture
def stories(tmp_path):
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": f"story {n}"}) + "\n" for n in range(6)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("docs", Source(name="docs")),
        ("docs:train", Source(name="docs", split="train")),
        ("a/b.jsonl", Source(name="a/b.jsonl")),
        ("b.txt[400:]", Source(name="b.txt", start=400)),
        ("b.parquet[:5]", Source(name="b.parquet", stop=5)),
        ("b.jsonl[10:20]", Source(name="b.jsonl", start=10, stop=20)),
        ("wikitext2:a/wiki.test.raw.txt", Source(name="a/wiki.test.raw.txt", like="wikitext2")),
        ("c4:c4-validation.jsonl", Source(name="c4-validation.jsonl", like="c4")),
    ],
)
def test_a_source_reads_back(text, source):
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "dosc",
            "'dosc' is unknown; choose one of docs, wikitext2, ptb, c4, slimpajama, openhermes, bookcorpus, or a file",
        ),
        ("docs:test", "docs has no split 'test'; choose one of train, calibration, evaluation"),
        ("stories.csv", "'stories.csv' ends in none of .txt, .jsonl, .parquet"),
        ("folder/stories", "'folder/stories' ends in none of"),
        ("stories.txt[4]", r"must read \[first:\], \[:end\] or \[first:end\]"),
        ("stories.txt[-4:]", "must read"),
        ("stories.txt[4:4]", r"the rows \[4:4\] of 'stories.txt\[4:4\]' are none"),
        ("absent.txt", "the file absent.txt does not exist"),
        ("ptb:absent.txt", "the file absent.txt does not exist"),
        ("ptb:stories.txt[4:]", r"'ptb:stories.txt\[4:\]' gives a slice, but what is read of ptb is fixed"),
        ("docs:stories.txt", "the file docs:stories.txt does not exist"),
    ],
)
def test_what_is_not_understood_gets_one_line(text, complaint):
    with pytest.raises(ValueError, match=f"^source: .*{complaint}") as error:
        check_source(text, "calibration")
    assert "\n" not in str(error.value)


def test_the_rows_of_jsonl_are_documents(stories):
    documents = read(f"{stories}[2:4]", "evaluation")
    assert documents.texts == ("story 2", "story 3")
    assert documents.hash == hash_texts(["story 2", "story 3"])
    assert documents.source == f"{stories}[2:4]"
    assert read(f"{stories}[4:100]", "calibration").texts == ("story 4", "story 5")


def test_the_lines_of_txt_are_one_document_joined_unchanged(tmp_path):
    path = tmp_path / "text.txt"
    content = " = Title = \r\n\n one\x0bline \u2028 still\nlast"
    path.write_bytes(content.encode())
    assert read(str(path), "evaluation").texts == (content,)
    assert read(f"{path}[1:3]", "evaluation").texts == ("\n one\x0bline \u2028 still\n",)


def test_the_rows_of_parquet_are_documents(tmp_path):
    path = tmp_path / "rows.parquet"
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).to_parquet(path)
    assert read(f"{path}[1:]", "training").texts == ("b", "c")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"content": "x"}\n', "row 1 of .* has no string under 'text'"),
        ("a.jsonl", '{"text": "fine"}\n\nnot json\n', "row 1 of .* has no string under 'text'"),
        ("a.jsonl", '{"text": "half a pair \\ud83d"}\n', "row 0 of .* is not valid Unicode"),
        ("a.jsonl", "", "holds no text"),
        ("a.txt", " \n\n", "holds no text"),
        ("a.txt", b"caf\xe9", "is not UTF-8 text"),
        ("a.parquet", "junk", "cannot be read as Parquet"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "row 0 of .* has no string under 'text'"),
    ],
)
def test_unusable_content_gets_one_line(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^source: .*{complaint}"):
        read(str(path), "calibration")


def test_a_first_row_without_text_and_a_slice_beyond_the_end_are_known_before_anything_is_read(tmp_path, stories):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "no text"}\n')
    with pytest.raises(ValueError, match=r"^source: row 0 of .*prompts.jsonl has no string under 'text'"):
        check_first_row(str(path))
    with pytest.raises(ValueError, match=r"^source: .*stories.jsonl\[9:\] holds no text: the file has no row 9"):
        check_first_row(f"{stories}[9:]")
    check_first_row(str(stories))
    check_first_row("docs")


def test_a_slice_beyond_the_end_holds_no_text(stories):
    with pytest.raises(ValueError, match=r"source: .*stories.jsonl\[9:\] holds no text"):
        read(f"{stories}[9:]", "calibration")


def test_the_hash_knows_where_a_document_ends():
    assert hash_texts(["ab", "c"]) != hash_texts(["a", "bc"]) != hash_texts(["abc"])
    assert hash_texts(["ab", "c"]) == hash_texts(("ab", "c"))


def test_the_identity_follows_the_content(stories):
    before = identity(f"{stories}[:2]")
    assert before != identity(str(stories))
    stories.write_text('{"text": "another"}\n', encoding="utf-8")
    assert identity(f"{stories}[:2]") != before
    assert "numpy=" in identity("docs")
    assert identity("wikitext2:test") == "wikitext2:test"


@pytest.mark.parametrize("named", [("docs:train",), ("docs", "training")])
def test_the_training_text_is_named_by_everything_installed(named, monkeypatch):
    before, held_out = identity(*named), identity("docs")
    installed = [*metadata.distributions()]
    monkeypatch.setattr(sources.docs, "distributions", lambda: reversed(installed))
    assert identity(*named) == before
    monkeypatch.setattr(sources.docs, "distributions", lambda: [one for one in installed if one.name != "torch"])
    assert identity(*named) != before
    assert identity("docs") == held_out


def test_each_role_reads_its_own_part_of_docs(monkeypatch):
    monkeypatch.setattr(sources.docs, "read", lambda part: [f"the {part} part"])
    parts = {role: read("docs", role).texts for role in ("training", "calibration", "evaluation")}
    assert parts == {
        "training": ("the train part",),
        "calibration": ("the calibration part",),
        "evaluation": ("the evaluation part",),
    }
    assert read("docs:train", "evaluation").texts == ("the train part",)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "docs"])
def test_without_network_a_set_of_the_hub_fails_at_once(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"^source: {name} .*not in the local cache.*give the path of a .txt"):
        read(name, "evaluation")
    assert time.monotonic() - started < 30  # the clients' own time-outs take minutes


def http_error(status):
    request = httpx2.Request("GET", "https://hub")
    return HfHubHTTPError(f"{status}\nand more", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "kind", "complaint"),
    [
        (http_error(503), ConnectionError, "the hub failed: 503$"),
        (http_error(429), ConnectionError, "the hub failed: 429$"),
        (httpx2.ReadTimeout("slow"), ConnectionError, "the hub failed: slow$"),
        (http_error(404), ValueError, "not in the local cache"),
        (http_error(403), ValueError, "not in the local cache"),
        (DatasetNotFoundError("none"), ValueError, "not in the local cache"),
    ],
)
def test_a_failure_that_may_pass_is_told_from_a_refusal(error, kind, complaint, monkeypatch):
    def fail(*place, **options):
        raise error

    monkeypatch.setattr("datasets.load_dataset", fail)
    monkeypatch.setattr(sources, "hub_answers", lambda *offline: True)
    with pytest.raises(kind, match=f"^source: c4 .*{complaint}"):
        read("c4", "evaluation")


def test_a_cached_configuration_is_read_without_a_network_and_no_other_is_taken_for_it(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(sources, "hub_answers", lambda *offline: False)
    keep_in_cache(tmp_path / "Salesforce___wikitext" / "wikitext-103-raw-v1")
    with pytest.raises(ValueError, match="not in the local cache"):
        check_source("wikitext2", "evaluation")
    keep_in_cache(tmp_path / "Salesforce___wikitext" / "wikitext-2-raw-v1")
    started = time.monotonic()
    assert read("wikitext2", "evaluation").texts == ("one\n\ntwo",)
    assert time.monotonic() - started < 30
    assert not constants.HF_HUB_OFFLINE


def keep_in_cache(folder):
    """What `datasets` leaves in its cache of a configuration with one split of two rows."""
    place = folder / "0.0.0" / "abc"
    place.mkdir(parents=True)
    rows = Dataset.from_dict({"text": ["one", "two"]})
    with ArrowWriter(path=str(place / "wikitext-test.arrow"), features=rows.features) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    info = DatasetInfo(features=rows.features, builder_name="parquet", dataset_name="wikitext", version="0.0.0")
    info.config_name, info.splits = folder.name, {"test": SplitInfo("test", 0, 2, dataset_name="wikitext")}
    info.write_to_directory(str(place))


def test_the_rows_of_a_set_become_documents_as_its_papers_say(monkeypatch):
    rows = [{"text": "a", "sentence": "a", "conversations": [{"value": "q"}, {"value": "r"}]}] * 2
    asked = []

    def load_dataset(*place, **options):
        asked.append((place, options["split"], options["streaming"]))
        return rows

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(sources, "hub_answers", lambda *offline: True)
    assert read("wikitext2", "evaluation").texts == ("a\n\na",)
    assert read("ptb", "calibration").texts == ("a a",)
    assert read("c4", "evaluation").texts == ("a a",)
    assert read("c4", "calibration").texts == ("a", "a")
    assert read("openhermes", "calibration").texts == ("q\n\nr", "q\n\nr")
    assert asked[0] == (("Salesforce/wikitext", "wikitext-2-raw-v1"), "test", False)
    assert SOURCES["openhermes"].rows_of("calibration") == slice(0, 4000)
    assert SOURCES["openhermes"].rows_of("evaluation") == slice(4000, 8000)
    assert asked[2] == (("allenai/c4", "en"), "validation", True)


def test_the_known_counts_of_the_stories(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories3M")
    path = shared / "text/tinystories_train_sample.jsonl"
    calibration_T = encode(read(f"{path}[0:400]", "calibration").texts, tokenizer)
    evaluation_T = encode(read(f"{path}[400:787]", "evaluation").texts, tokenizer)
    assert len(calibration_T) // 256 == 314
    assert (len(evaluation_T), len(evaluation_T) // 256) == (95_195, 371)
    first_NW = sample_windows(calibration_T, 256, 64, seed=0, sampling="first")
    assert torch.equal(first_NW.flatten(), calibration_T[: 64 * 256])


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("a.jsonl", "a.jsonl", True),
        ("a.jsonl[:500]", "./a.jsonl[400:430]", True),
        ("a.jsonl", "a.jsonl[7:]", True),
        ("a.jsonl[:400]", "a.jsonl[400:]", False),
        ("a.jsonl[5:9]", "b.jsonl[5:9]", False),
        ("docs", "docs", False),  # each role reads a part of its own
        ("docs", "a.jsonl", False),
    ],
)
def test_slices_of_one_file_share_rows_or_not(one, other, shared):
    first, second = parse_source(one), parse_source(other)
    assert first.overlaps(second) == second.overlaps(first) == shared

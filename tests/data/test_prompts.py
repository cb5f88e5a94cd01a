"""Prompts: what each kind of file gives, what is refused and how, and a split that no content crosses."""

import csv
import hashlib
import json
import random

import pytest
from datasets import Dataset

from tasks.data.prompt_rows import LONGEST, drafts_of_documents
from tasks.data.prompts import Prompt, identify_prompts, read_prompts, split_prompts

ROWS = [{"prompt": f"What comes after {n} sheep?", "reference": f"Sheep number {n + 1}."} for n in range(6)]


def write(path, rows):
    """The rows as a file of the kind that its name says."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        Dataset.from_list(rows).to_parquet(path)
    return path


def story(seed, words=120):
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=draw.randint(2, 7))) for _ in range(words)) + "."


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_kind_of_file_gives_its_rows(tmp_path, ending):
    path = write(tmp_path / f"sheep{ending}", [{"id": "x", **row, "note": 'a, "b"\nc'} for row in ROWS])
    prompts = read_prompts(str(path))
    assert [(prompt.text, prompt.reference) for prompt in prompts] == [tuple(row.values()) for row in ROWS]
    assert {prompt.source for prompt in prompts} == {"sheep"}
    assert [prompt.text for prompt in read_prompts(f"{path}[2:4]")] == [row["prompt"] for row in ROWS[2:4]]
    assert [prompt.text for prompt in read_prompts(f"{path}[4:]", limit=1)] == [ROWS[4]["prompt"]]
    assert [prompt.text for prompt in read_prompts(f"{path}[1:9]", limit=2)] == [row["prompt"] for row in ROWS[1:3]]


@pytest.mark.parametrize(
    ("row", "text", "reference"),
    [
        ({"question": "q ?", "answer": "a"}, "q ?", "a"),
        ({"task_id": "t", "prompt": "def f():\n", "canonical_solution": "    pass\n"}, "def f():\n", "    pass\n"),
        ({"prompt": "p", "answer": "a"}, "p", "a"),
        ({"text": "write it", "code": "x = 1", "task_id": 3}, "write it", "x = 1"),
        ({"instruction": "do", "context": "with this", "response": "done"}, "do\n\nwith this", "done"),
        ({"instruction": "do", "context": "", "response": "done"}, "do", "done"),
        ({"instruction": "do", "output": "done"}, "do", "done"),
        ({"answer": "a", "prompt": "p", "reference": "r"}, "p", "r"),
    ],
)
def test_the_columns_of_known_sets(tmp_path, row, text, reference):
    (prompt,) = read_prompts(str(write(tmp_path / "set.jsonl", [row])))
    assert (prompt.text, prompt.reference) == (text, reference)


def test_a_prompt_alone_is_divided_in_two_at_white_space(tmp_path):
    rows = [{"prompt": f" {story(seed, words)} "} for seed, words in enumerate((2, 3, 10, 400))]
    prompts = read_prompts(str(write(tmp_path / "alone.csv", rows)))
    for row, prompt in zip(rows, prompts, strict=True):
        assert prompt.text + prompt.reference == row["prompt"].strip()
        assert prompt.text.strip()
        assert prompt.reference[0] == " "


def test_documents_give_their_beginnings_first_and_pieces_are_theirs_word_for_word():
    texts = [story(seed, words) for seed, words in enumerate((900, 5, 300))]
    drafts = drafts_of_documents("here", texts, start=7)
    assert [draft.row for draft in drafts[:4]] == [7, 8, 9, 7]
    for number, text in enumerate(texts, 7):
        pieces = [draft.text + draft.reference for draft in drafts if draft.row == number]
        assert all(len(piece) <= LONGEST for piece in pieces)
        assert text.startswith(" ".join(pieces))  # what is left out is a short end
        assert len(text) - len(" ".join(pieces)) <= 200
    shares = [len(draft.text) / len(draft.content) for draft in drafts if len(draft.content) > 500]
    assert min(shares) < 0.3
    assert max(shares) > 0.5


def test_a_word_that_is_longer_than_a_piece_is_no_prompt_unless_it_begins_the_document():
    drafts = drafts_of_documents("here", [f"a beginning {'x' * 2000} {story(1, 100)}"])
    assert [draft.content[:11] for draft in drafts] == ["a beginning", story(1, 100)[:11]]
    with pytest.raises(ValueError, match="row 0 of here is a single word, valid are two or more"):
        drafts_of_documents("here", ["x" * 2000])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "a.csv holds no prompt: it has no row 0, valid are rows with prompt and reference, .* or text$"),
        ("a.csv", "prompt,reference\n", "a.csv holds no prompt: it has no row 0, valid are"),
        ("a.jsonl", "", "a.jsonl holds no prompt: it has no row 0, valid are"),
        (
            "a.csv",
            "Tell me,a story\nAnd me,another\n",
            "row 0 of .* has columns 'Tell me', 'a story', valid are prompt",
        ),
        ("a.jsonl", '{"title": "x"}\n', "row 0 of .* has columns 'title', valid are prompt and reference, prompt and"),
        ("a.jsonl", "not json\n", "row 0 of .* has no columns, valid are prompt and reference"),
        ("a.jsonl", '{"prompt": "x", "answer": "y"}\n{"prompt": "x"}\n', "row 1 of .* has no string under 'answer'"),
        ("a.jsonl", '{"prompt": 3, "answer": "y"}\n', "row 0 of .* has no string under 'prompt'"),
        ("a.jsonl", '{"prompt": "x", "answer": " \\n"}\n', "row 0 of .* has nothing under 'answer', valid is a text"),
        ("a.jsonl", '{"prompt": "half \\ud83d", "answer": "y"}\n', "row 0 of .* is not valid Unicode"),
        ("a.csv", "prompt,answer\nx,y\n,z\n", "row 1 of .* has nothing under 'prompt', valid is a text"),
        ("a.csv", "prompt,answer\nx,y\nx\n", "row 1 of .* has no string under 'answer'"),
        ("a.csv", "prompt\nHello, you\n", "row 0 of .* has more fields than the header"),
        ("a.csv", 'prompt,answer\n"x,y\n', "cannot be read as CSV: unexpected end of data in line 2"),
        ("a.csv", b"prompt,answer\ncaf\xe9,y\n", "is not UTF-8 text"),
        ("a.csv", "prompt\nword\n", "row 0 of .* is a single word, valid are two or more"),
        ("a.parquet", "junk", "cannot be read as Parquet"),
        ("a.txt", "words", "ends in none of .csv, .jsonl, .parquet"),
    ],
)
def test_unusable_content_gets_one_line(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^prompts: .*{complaint}") as error:
        read_prompts(str(path))
    assert "\n" not in str(error.value)


def test_numbers_in_parquet_are_no_prompts(tmp_path):
    path = write(tmp_path / "numbers.parquet", [{"prompt": 1, "reference": "one"}])
    with pytest.raises(ValueError, match=r"^prompts: row 0 of .* has no string under 'prompt'"):
        read_prompts(str(path))


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("absent.csv", "the file absent.csv does not exist"),
        ("dosc", "'dosc' is unknown; choose one of docs, .* or a file \\(.csv, .jsonl, .parquet\\)"),
        ("absent.csv[4]", "must read"),
        ("docs+", "'' is unknown"),
    ],
)
def test_a_source_that_is_not_there_gets_one_line(source, complaint):
    for use in (read_prompts, identify_prompts):
        with pytest.raises(ValueError, match=f"^prompts: .*{complaint}"):
            use(source)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match=r"^limit: 0 given, valid is 1 or more"):
        read_prompts("docs", limit=0)


def test_joined_sources_take_turns_and_a_prompt_that_is_in_both_counts_once(tmp_path):
    one = write(tmp_path / "one.csv", ROWS[:3])
    two = write(tmp_path / "two.jsonl", ROWS[2:6])
    prompts = read_prompts(f"{one}+{two}")
    assert [prompt.text[-8:] for prompt in prompts] == [f"{n} sheep?"[-8:] for n in (0, 2, 1, 3, 4, 5)]
    assert [prompt.source for prompt in prompts] == ["one", "two", "one", "two", "two", "two"]
    assert len(read_prompts(f"{one}+{two}", limit=4)) == 4


def test_the_identity_follows_the_content_of_every_source(tmp_path):
    one, two = write(tmp_path / "one.csv", ROWS[:3]), write(tmp_path / "two.jsonl", ROWS[3:])
    before = identify_prompts(f"{one}+{two}+docs")
    assert identify_prompts(f"{one}+{two}+docs") == before != identify_prompts(f"{two}+{one}+docs")
    write(two, ROWS[2:])
    assert identify_prompts(f"{one}+{two}+docs") != before


def test_an_id_is_a_hash_of_the_text_and_its_reference():
    prompt = Prompt(text="Why?", reference="Because.", source="x")
    assert prompt.id == hashlib.sha256(b"Why?\0Because.").hexdigest()[:16]
    assert prompt.group == Prompt(text="why", reference="For it.", source="y").group != prompt.id
    assert prompt.group != Prompt(text="When?", reference="Because.", source="x").group


def planted(folder):
    """Two files of stories, and in both of them copies of each other's: exact, rewritten, and with other words."""
    draw = random.Random(1)
    stories = [story(seed, draw.choice((30, 60, 200))) for seed in range(80)]

    def rewritten(text):
        return "  " + text.replace(" ", "\n", 3).replace(".", "!!").upper()

    def altered(text):
        words = text.split()
        words[len(words) // 2] = "other"
        return " ".join(words)

    one = [{"prompt": text, "reference": f"{n} ends so"} for n, text in enumerate(stories)]
    two = [{"prompt": text, "reference": f"{n} ends otherwise"} for n, text in enumerate(stories[:20])]
    two += [{"prompt": rewritten(text), "reference": f"{n} is loud"} for n, text in enumerate(stories[20:40], 20)]
    two += [{"prompt": altered(text), "reference": f"{n} is other"} for n, text in enumerate(stories[40:60], 40)]
    return write(folder / "one.csv", one), write(folder / "two.jsonl", two)


def number_of(prompt):
    return int(prompt.reference.split()[0])


def test_no_duplicate_and_no_near_duplicate_crosses_the_split(tmp_path):
    one, two = planted(tmp_path)
    prompts = read_prompts(f"{one}+{two}")
    assert len(prompts) == 140
    for seed in range(5):
        train, test = split_prompts(prompts, seed=seed)
        assert not {*map(number_of, train)} & {*map(number_of, test)}
        assert {prompt.id for prompt in [*train, *test]} == {prompt.id for prompt in prompts}
        assert len(test) in (27, 28)  # at most a fifth of 140, and groups are of one or two


def test_pieces_of_a_document_and_of_its_copy_stay_together(tmp_path):
    texts = [story(seed, 500) for seed in range(12)]
    copies = [f"{text.replace(' ', '  ', 5)} And so on." for text in texts[:6]]
    prompts = read_prompts(str(write(tmp_path / "texts.jsonl", [{"text": text} for text in texts + copies])))
    assert len(prompts) > 50
    train, test = split_prompts(prompts, test_share=0.5)
    words = [{word for prompt in part for word in prompt.text.split() if len(word) == 7} for part in (train, test)]
    assert len({prompt.group for prompt in prompts}) == 12
    assert len(words[0] & words[1]) < 0.02 * len(words[0])  # random words of seven letters: chance alone


def test_the_split_is_drawn_by_the_seed_and_not_by_the_order(tmp_path):
    one, two = planted(tmp_path)
    here, there = split_prompts(read_prompts(f"{one}+{two}")), split_prompts(read_prompts(f"{two}+{one}"))
    assert [[prompt.id for prompt in part] for part in here] == [[prompt.id for prompt in part] for part in there]
    other = split_prompts(read_prompts(f"{one}+{two}"), seed=1)
    assert {prompt.id for prompt in here[1]} != {prompt.id for prompt in other[1]}
    half = split_prompts(read_prompts(f"{one}+{two}"), test_share=0.5)
    assert len(half[1]) in (69, 70)


def test_few_prompts_are_split_and_one_content_is_refused():
    few = [Prompt(text=text, reference="x", source="s") for text in ("one", "two", "Two!", "TWO")]
    train, test = split_prompts(few)
    assert ([prompt.text for prompt in test], len(train)) == (["one"], 3)
    with pytest.raises(ValueError, match=r"^prompts: 3 of the same content given, valid are two contents or more"):
        split_prompts(few[1:])
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match=f"^test_share: {share} given, valid is above 0 and below 1"):
            split_prompts(few, test_share=share)


def test_the_built_in_text_gives_prompts_of_all_its_documents():
    prompts = read_prompts("docs", limit=39)
    assert len({prompt.group for prompt in prompts}) == 39
    assert {prompt.source for prompt in prompts} == {"docs"}


@pytest.mark.parametrize(
    ("name", "rows"), [("gsm8k_test", 1319), ("humaneval", 164), ("mbpp", 974), ("dolly_sample", 151)]
)
def test_the_real_sets_are_read_whole(shared, name, rows):
    path = shared / f"prompts/{name}.jsonl"
    lines = {tuple(json.loads(line).values())[:2] for line in path.read_text(encoding="utf-8").splitlines()}
    prompts = read_prompts(str(path))
    assert len(prompts) == rows
    assert name == "humaneval" or {(prompt.text, prompt.reference) for prompt in prompts} == lines
    train, test = split_prompts(prompts)
    assert abs(len(test) - 0.2 * rows) <= 3
    assert not {prompt.group for prompt in train} & {prompt.group for prompt in test}


def test_stories_are_prompts_whose_references_go_on(shared):
    path = shared / "text/tinystories_train_sample.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()[:50]]
    prompts = read_prompts(f"{path}[:50]")
    assert all(text.startswith(prompt.text + prompt.reference) for text, prompt in zip(texts, prompts, strict=False))

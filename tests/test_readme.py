"""The README is true: its numbers come from stored rows, its commands are commands, its tree is the tree."""

import json
import re
import shlex
from pathlib import Path

import pytest

from bench.methods_table import markdown
from bench.texts import MODELS, read_lines
from flows.cli import build_parser
from flows.presets import SWEEPS
from tasks.prune import MITIGATIONS, PRUNERS, SELECTIONS
from tasks.record.metrics import TABLES, query
from tasks.record.report import markdown_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "bench" / "results" / "demo"  # the rows that the demo stored, as Parquet
BUILTIN = json.loads((ROOT / "tasks/model/builtin/manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def demo_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The stored rows of the demo as the rows of an artifacts folder; its sweep's id."""
    (tmp_path / "metrics").symlink_to(DEMO)
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    return query("select distinct sweep from runs")[0]["sweep"]


def test_the_results_table_is_what_the_stored_rows_say(demo_rows: str):
    assert markdown_table(demo_rows) in README


def test_every_row_of_the_table_names_the_command_that_made_it(demo_rows: str):
    commands = [row["command"] for row in query("select command from runs order by recorded_at, run")]
    assert len(commands) == len(SWEEPS["demo"]().points)
    assert all(command in README for command in commands)


def test_what_the_choices_are_worth_is_what_the_stored_lines_say():
    files = {name: ROOT / "bench" / "results" / f"methods-{name}.jsonl" for name in MODELS}
    made = markdown({name: read_lines(file) for name, file in files.items() if file.exists()})
    assert made == (ROOT / "bench" / "results" / "methods.md").read_text(encoding="utf-8")
    of_model = made.partition("## stories3M: dense 5.903")[2].partition("\n## ")[0].splitlines()
    table = README.partition("| pattern | method | none |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 6
    assert [row for row in table if row not in of_model] == []


def test_the_built_in_model_is_described_by_its_manifest():
    stated = BUILTIN["evaluation"]
    for number in (f"{stated['bits_per_byte']:.3f} bits per byte", f"{BUILTIN['parameters'] / 1e6:.2f} M parameters"):
        assert number in README
    assert stated["bits_per_byte"] <= 1.6


def test_every_command_of_ours_is_understood():
    lines = [line.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("espalier ")]
    assert len(ours) > 5
    for line in ours:
        build_parser().parse_args(shlex.split(line.partition("#")[0])[1:])
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in lines:
        if line.startswith("make "):
            assert line.split()[1] in targets


def test_every_table_is_named_with_what_a_row_of_it_is():
    listed = (ROOT / "artifacts" / "README.md").read_text(encoding="utf-8")
    listed = listed.partition("| table | one row per |")[2].partition("\n\n")[0]
    docs = {table: " ".join((kind.__doc__ or "").split()) for table, kind in TABLES.items()}
    grains = {table: re.match(rf"{table}: one row per ([^.;]+)[.;]", doc) for table, doc in docs.items()}
    assert listed.splitlines()[2:] == [f"| `{table}` | {grain and grain[1]} |" for table, grain in grains.items()]


def test_every_method_and_every_place_is_named():
    assert all(f"`{name}`" in README for name in PRUNERS)
    assert all(re.search(rf"`(--\w+ )?{name}`", README) for name in SELECTIONS | MITIGATIONS)
    tree = README.partition("```text\n")[2].partition("```")[0]
    places = [line.split()[0] for line in tree.splitlines()]
    assert len(places) > 20
    assert [place for place in places if not (ROOT / place).exists()] == []

"""README and its pages are true: numbers come from stored rows, commands are commands, the tree is the tree."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from bench.methods_table import markdown
from bench.texts import MODELS, read_lines
from flows.cli import build_parser
from flows.presets import SWEEPS
from flows.terminal import FORETOLD
from tasks.prune import MITIGATIONS, PRUNERS, SELECTIONS
from tasks.prune.structure.cut_row import CutRow
from tasks.record.metrics import query
from tasks.record.pages.results import markdown_table
from tasks.record.tables import TABLES
from tasks.train_controller.allocators import SEARCHERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
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


def test_what_programs_are_told_of_a_cut_is_what_the_stored_rows_say(demo_rows: str):
    """The forms and the cut itself are of runs since those rows were stored; what went of it they say."""
    told = json.loads(re.search(r"```json\n(.*?)```", PAGES["cut.md"], re.DOTALL)[1])
    assert [*told["cut"]] == [field.name for field in fields(CutRow)]
    [sizes] = query("select sum(parameters) as remaining, sum(parameters_before) as dense from slices")
    assert told["cut"]["removed"] == round(1 - sizes["remaining"] / sizes["dense"], 4)
    rows = {row["phase"]: row for row in query("from forecasts")}
    assert told["forecasts"].keys() == rows.keys()
    for phase, said in told["forecasts"].items():
        assert [*said] == [*FORETOLD]
        assert said == pytest.approx({name: rows[phase][name] for name in FORETOLD}, rel=1e-3)


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


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_is_understood(page: str):
    blocks = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(espalier \w+ --[^`]*)`", PAGES[page])
    ours = [line for line in (*lines, *inline) if line.startswith("espalier ")]
    assert ours or page == "tables.md"
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


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_page_and_to_a_heading_of_it(page: str):
    here = ROOT / ("" if page == "README.md" else "docs")
    for place, _, heading in re.findall(r"\]\(((?!https?:)[^)#]*)(#([^)]*))?\)", PAGES[page]):
        target = here / (place or page)
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in {"", *(re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings)}


def test_every_page_is_linked_and_every_method_and_every_place_is_named():
    assert all(f"(docs/{page}" in README for page in PAGES if page != "README.md")
    assert all(f"`{name}`" in README for name in PRUNERS)
    everywhere = " ".join(PAGES.values())
    assert all(re.search(rf"`(--\w+ )?{name}`", everywhere) for name in SELECTIONS | MITIGATIONS | SEARCHERS)
    tree = README.partition("```text\n")[2].partition("```")[0]
    places = [line.split()[0] for line in tree.splitlines()]
    assert len(places) > 20
    assert [place for place in places if not (ROOT / place).exists()] == []

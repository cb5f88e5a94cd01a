"""The report: everything on it comes from stored rows, it needs nothing else, and it repeats to the byte."""

import dataclasses
import re
import shutil
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.handles import LinearRow
from tasks.record import metrics
from tasks.record.pages import units
from tasks.record.pages.report import write_report
from tasks.record.pages.titles import title
from tests.record.plausible import CONTEXT, record_run


class Elements(HTMLParser):
    """Checks that the elements of a page nest, and collects what the tests ask about."""

    VOID = frozenset({"meta", "br", "link", "img", "use", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def attributes(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.seen if name == tag]


def test_a_page_needs_nothing_else_and_is_accessible(swept):
    for run in ("r1", "s1"):
        page = write_report(run).read_text()
        elements = Elements(page)
        assert 'name="viewport"' in page
        assert "prefers-color-scheme: dark" in page
        assert "@media print" in page
        assert {"h1", "p", "dd"} <= set(re.search(r"\n(.*) \{ overflow-wrap: anywhere; \}", page)[1].split(", "))
        assert not elements.attributes("script")
        assert not elements.attributes("img")
        assert not re.search(r'(?:src|href)="(?!#)', page)
        assert not re.search(r"@import|url\((?!#)", page)
        figures = elements.attributes("svg")
        assert len(figures) == 4
        assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
        assert all(cell["scope"] in ("row", "col") for cell in elements.attributes("th"))
        ids = [attributes["id"] for _, attributes in elements.seen if attributes.get("id")]
        assert len(ids) == len(set(ids))
        assert {target["xlink:href"][1:] for target in elements.attributes("use")} <= set(ids)
        assert not re.search(r"#0000(0[a-d]|a\d)", page)  # every colour became a variable


def test_the_same_rows_give_the_same_bytes_and_parquet_is_enough(swept, artifacts):
    first = write_report("s1").read_bytes()
    for leaving in artifacts.iterdir():
        if leaving.name != "metrics":
            shutil.rmtree(leaving) if leaving.is_dir() else leaving.unlink()
    assert write_report("s1").read_bytes() == first


def test_linears_of_which_some_have_no_damping_no_rank_and_no_sweep():
    """As where some were refitted and others became two factors."""
    record_run()
    shared = {"out_features": 64, "in_features": 64, "zeros": 2048, "sparsity": 0.5, "seconds": 0.1}
    refitted = LinearRow(block=0, linear="q_proj", error=0.01, sweep_error=0.02, damp=1e-4, **shared)
    factored = LinearRow(block=0, linear="o_proj", error=0.03, rank=8, **shared)
    metrics.record(CONTEXT, "linears", [refitted, factored])
    page = write_report("r1").read_text()
    fold = page.partition(" linears</summary>")[2].partition("</details>")[0]
    assert {"0.0001", "8", units.ABSENT} <= set(re.sub("<.*?>", "\n", fold).split("\n"))


def test_the_title_says_how_many_runs_there_are_and_whether_more_were_to_come():
    runs = [{"run": f"r{number}", "sweep": "s1", "model": "stories", "sweep_points": 3} for number in range(3)]
    assert title("s1", runs) == "stories: 3 runs compared"
    assert title("s1", runs[:2]) == "stories: 2 of 3 runs, not finished"
    assert title("s1", [runs[0] | {"sweep_points": 1}]) == "stories: 1 run"
    assert title("s1", [row | {"sweep_points": None} for row in runs]) == "stories: 3 runs compared"  # of older rows
    assert title("r0", [runs[0] | {"method": "wanda", "pattern": "2:4"}]) == "wanda 2:4 on stories"


def test_words_from_outside_are_escaped():
    record_run(dataclasses.replace(CONTEXT, model="<script>alert(1)</script>"))
    page = write_report("r1").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_run_that_recorded_little_has_a_page_too():
    record_run()
    for table in ("stages", "datasets", "blocks", "linears", "speeds", "artifacts"):
        shutil.rmtree(metrics.home.root() / "metrics" / table)
    page = write_report("r1").read_text()
    assert "Stages" not in page
    assert "Prefill" not in page
    assert page.count("Speed not measured.") == 2  # in the summary and under the results
    assert "Speeds are" not in page


def test_an_error_that_norms_estimate_is_marked():
    record_run()
    assert "≈" not in write_report("r1").read_text()
    [file] = (metrics.home.root() / "metrics" / "linears").iterdir()
    rows = pq.read_table(file)
    rows = rows.drop_columns([name for name in ("error_from",) if name in rows.column_names])
    pq.write_table(rows.append_column("error_from", pa.array(["norms", "norms", "gram", None])), file)
    page = write_report("r1").read_text()
    assert page.count("≈ 0.01") == 2
    assert "≈ is an estimate from the norms of the inputs alone" in page


def test_a_run_that_is_not_recorded_is_named():
    record_run()
    with pytest.raises(ValueError, match="run: 'r9' is not recorded; the latest are r1"):
        write_report("r9")

"""The report: everything on it comes from stored rows, it needs nothing else, and it repeats to the byte."""

import dataclasses
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.handles import BlockRow, LinearRow
from tasks.record import metrics, units
from tasks.record.drawing import FOLD, folded, rows_height, standalone
from tasks.record.report import drawings, markdown_table, write_report
from tasks.record.results import overlap_of, results_of, summary
from tasks.record.titles import title
from tests.record.plausible import CONTEXT, evaluation, record_run, record_texts

POINTS = {  # run -> method, pattern, sparsity, perplexity
    "r1": ("wanda", "50%", 0.5, 29.25),
    "r2": ("sparsegpt", "50%@matrix", 0.5, 19.45),
    "r3": ("wanda", "2:4", 0.5, 112.2),
    "r4": ("wanda", "70%", 0.7, float("inf")),
}


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture
def swept(artifacts):
    for run, (method, pattern, sparsity, ppl) in POINTS.items():
        context = dataclasses.replace(CONTEXT, run=run, method=method, pattern=pattern)
        record_run(context, sweep="s1", pruned=evaluation(sparsity=sparsity, ppl=ppl))


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


def test_the_table_of_a_run():
    record_run()
    assert markdown_table("r1").splitlines() == [
        "| Method | Pattern | Perplexity | nats/token | bits/byte |  Zeros |         Size |"
        "              Prefill speed |              Decode speed |",
        "| ------ | ------- | ---------: | ---------: | --------: | -----: | -----------: |"
        " -------------------------: | ------------------------: |",
        "| dense  | –       |      6.050 |      1.800 |     1.310 |  0.0 % |      12.6 MB |"
        "             3,200 tokens/s |            3,200 tokens/s |",
        "| wanda  | 2:4     |      20.09 |      3.000 |     1.310 | 50.0 % | 7.0 MB 0.56× |"
        " 1.01× [0.97, 1.05] no gain | 1.12× [1.07, 1.18] faster |",
    ]
    page = write_report("r1").read_text()
    assert "Perplexity goes from 6.050 to 20.09 with 50.0 % of the weights" in page
    assert "Speed, prefill: a smaller file, no faster on this machine; decode: faster on this machine." in page
    assert "espalier oneshot --pruner wanda --pattern 2:4" in page
    assert "1 of 3 stages came from the cache" in page


def test_a_sweep_shows_the_dense_model_once_and_the_lowest_of_each_pattern(swept):
    lines = [[cell.strip() for cell in line.split("|")[1:4]] for line in markdown_table("s1").splitlines()]
    assert lines[2:] == [
        ["dense", "–", "6.050"],
        ["wanda", "2:4", "112.2"],
        ["sparsegpt", "50%@matrix", "**19.45**"],
        ["wanda", "50%", "29.25"],
        ["wanda", "70%", "∞"],
    ]
    page = write_report("s1").read_text()
    assert "<h1>stories: 4 runs compared</h1>" in page
    assert "Speed, prefill: 4 of 4 a smaller file, no faster on this machine; decode: 4 of 4 faster on" in page
    assert page.count("<details>") == 4


def test_the_title_says_how_many_runs_there_are_and_whether_more_were_to_come():
    runs = [{"run": f"r{number}", "sweep": "s1", "model": "stories", "sweep_points": 3} for number in range(3)]
    assert title("s1", runs) == "stories: 3 runs compared"
    assert title("s1", runs[:2]) == "stories: 2 of 3 runs, not finished"
    assert title("s1", [runs[0] | {"sweep_points": 1}]) == "stories: 1 run"
    assert title("s1", [row | {"sweep_points": None} for row in runs]) == "stories: 3 runs compared"  # of older rows
    assert title("r0", [runs[0] | {"method": "wanda", "pattern": "2:4"}]) == "wanda 2:4 on stories"


def test_seeds_have_a_column_where_they_differ():
    for seed in (0, 1):
        record_run(dataclasses.replace(CONTEXT, run=f"r{seed}", seed=seed), sweep="s1")
    assert "Seed" in markdown_table("s1").splitlines()[0]
    assert "Seed" not in markdown_table("r1").splitlines()[0]


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


def last_cells(run: str) -> list[str]:
    """The last column of the results table, top down."""
    return [line.split("|")[-2].strip() for line in markdown_table(run).splitlines()]


def test_on_cuda_the_table_says_how_many_linears_ran_sparse_and_also_where_none_did():
    for run, device, sparse_linears in (("r1", "cuda", 14), ("r2", "cuda", 0), ("r3", "cpu", 0)):
        context = dataclasses.replace(CONTEXT, run=run)
        record_run(context, sweep="s1", device=device, sparse_linears=sparse_linears)
    assert last_cells("r1")[::2] == ["Sparse linears", "–"]
    assert last_cells("r1")[3] == "14"
    assert last_cells("r2")[3] == "no linear ran sparse"
    assert last_cells("r3")[0] == "Decode speed"
    assert sorted(last_cells("s1")[3:]) == ["14", "no linear ran sparse", "–"]
    assert "no linear ran sparse" in write_report("r2").read_text()


def test_speeds_recorded_before_that_was_counted_are_read():
    record_run()
    before = markdown_table("r1")
    [file] = (metrics.home.root() / "metrics" / "speeds").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["device", "sparse_linears"]), file)
    assert markdown_table("r1") == before


def test_a_file_that_is_no_smaller_is_not_called_so():
    record_run(pruned=evaluation(size_bytes=12_600_000))
    assert "prefill: neither a smaller file nor faster on this machine" in summary(results_of("r1"))


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


def factor(run: str, zeros_and_ranks: list[tuple[int, int | None]], sweep: str | None = None) -> None:
    """Record a run whose pruned model has no zeros, as a product of factors has none; then its linears."""
    context = dataclasses.replace(CONTEXT, run=run, method="wanda+low_rank")
    record_run(context, sweep=sweep, pruned=evaluation(sparsity=0.0))
    rows = [
        LinearRow(
            block=number // 2,
            linear=("self_attn.q_proj", "mlp.down_proj")[number % 2],
            out_features=64,
            in_features=64,
            zeros=zeros,
            sparsity=zeros / 4096,
            error=0.01,
            rank=rank,
            seconds=0.1,
        )
        for number, (zeros, rank) in enumerate(zeros_and_ranks)
    ]
    metrics.record(context, "linears", rows)


def zeros_of(run: str) -> str:
    """The cell of the zeros of the pruned model of a run."""
    return markdown_table(run).splitlines()[-1].split("|")[6].strip()


def test_of_weights_with_factors_the_zeros_are_those_of_the_sparse_part_and_the_rank_stands_beside():
    factor("r1", [(2560, 12)] * 4)
    factor("r2", [(2560, 12), (3072, 18), (2048, 0), (2048, None)])  # 0: the pattern alone did better; None: not chosen
    factor("r3", [(0, 20)] * 4)  # factors alone
    factor("r4", [(2048, 0)] * 4)
    assert zeros_of("r1") == "62.5 % + rank 12"
    assert zeros_of("r2") == "59.4 % + ranks 12 to 18"
    assert zeros_of("r3") == "0.0 % + rank 20"
    assert zeros_of("r4") == "0.0 %"  # what was counted in the model: no factors to speak of
    page = write_report("r1").read_text()
    assert "with 62.5 % of the weights in the pruned linears zero beside factors (rank 12); the weight files" in page
    assert "of a weight with factors, in the sparse part beside them" in page
    assert "+ rank 12 pattern 2:4" in page
    assert [row["sparsity"] for row in results_of("r1")] == [0.0, 0.625]  # the dense model has none


def test_linears_recorded_before_there_were_ranks_are_read():
    record_run()
    before = markdown_table("r1")
    [file] = (metrics.home.root() / "metrics" / "linears").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["rank", "order"]), file)
    assert markdown_table("r1") == before
    assert "factors" not in write_report("r1").read_text()


def test_a_model_calibrated_on_the_text_of_its_evaluation_is_pointed_out():
    record_run()
    assert overlap_of("r1") == ""
    assert "flatters" not in write_report("r1").read_text()
    record_texts(calibration_hash=CONTEXT.dataset_hash)
    assert overlap_of("r1") == "Calibrated on the text of the evaluation (docs): the score flatters."
    assert overlap_of("r1") in write_report("r1").read_text()


def test_a_model_trained_on_the_text_of_its_evaluation_is_pointed_out():
    record_run()
    record_texts(role="recovery", calibration_hash=CONTEXT.dataset_hash)
    assert overlap_of("r1") == "Trained on the text of the evaluation (docs): the score flatters."


def test_a_text_that_one_run_read_and_another_was_scored_on_is_none_of_theirs():
    for run, calibration, evaluated in (("r1", "1" * 64, "2" * 64), ("r2", "2" * 64, "3" * 64)):
        context = dataclasses.replace(CONTEXT, run=run, dataset_hash=evaluated)
        record_run(context, sweep="s1")
        record_texts(context, calibration)
    assert overlap_of("s1") == ""


def test_a_figure_stands_alone_too(swept):
    for run in ("r1", "s1"):
        drawn = drawings(run, results_of(run))
        assert len(drawn) == write_report(run).read_text().count("<svg")
        for svg, caption in drawn.values():
            image = standalone(svg)
            assert ElementTree.fromstring(image).tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(" not in image
            assert caption


def test_the_figure_of_the_blocks_has_no_panel_and_no_name_without_a_curve():
    for run, method, errors in (("r1", "wanda", (0.02, 0.04)), ("r2", "magnitude", (None, None))):
        context = dataclasses.replace(CONTEXT, run=run, method=method)
        record_run(context, sweep="s1")
        rows = [BlockRow(block=i, sparsity=0.5, error=error, seconds=0.4) for i, error in enumerate(errors)]
        metrics.record(context, "blocks", rows)
    both, caption = drawings("s1", results_of("s1"))["blocks"]
    errors, zeros = both.partition('id="blocks-axes_2"')[::2]
    assert ("wanda" in errors, "magnitude" in errors) == (True, False)
    assert ("wanda" in zeros, "magnitude" in zeros) == (False, True)  # each is named once, where it has a curve
    assert "error" in caption
    alone, caption = drawings("r2", results_of("r2"))["blocks"]
    assert "axes_1" in alone
    assert "magnitude" in alone
    assert "axes_2" not in alone
    assert "error" not in alone + caption


def test_a_run_that_is_not_recorded_is_named():
    record_run()
    with pytest.raises(ValueError, match="run: 'r9' is not recorded; the latest are r1"):
        write_report("r9")


def test_numbers_read_well():
    assert [units.digits(value) for value in (5.9034, 29.25, 113, 2660.4, 0.0123, 0)] == [
        "5.903",
        "29.25",
        "113.0",
        "2,660",
        "0.01230",
        "0",
    ]
    assert [units.digits(value) for value in (None, float("inf"), float("nan"))] == ["–", "∞", "not a number"]
    assert [units.size(value) for value in (12, 4096, 7_000_000, 2.5e9)] == ["12 B", "4.1 kB", "7.0 MB", "2.5 GB"]
    assert [units.seconds(value) for value in (0.0421, 12.5, 200)] == ["0.042 s", "12.5 s", "3 min 20 s"]
    assert units.percent(0.4999) == "50.0 %"


def test_a_long_name_is_folded_behind_its_steps_and_nothing_of_it_is_lost():
    name = "ria+refit,drift=0.5+reconstruct,epochs=2+owl,spread=0.2+permute+group"
    lines = folded(name).split("\n")
    assert "".join(lines) == name
    assert len(lines) > 1
    assert max(map(len, lines)) <= FOLD
    assert folded("sparsegpt 2:4") == "sparsegpt 2:4"
    assert rows_height([name]) > rows_height(["wanda"])

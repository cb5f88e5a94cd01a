"""What a page says of sparse inputs: what was dropped and kept, what was learned, which products ran."""

import dataclasses

import pytest

from tasks.prune.activation.rows import SparseInputRow
from tasks.record import metrics
from tasks.record.pages.report import drawings, write_report
from tasks.record.pages.results import markdown_table, results_of
from tasks.record.runs.listing import runs_table
from tests.record.plausible import CONTEXT, record_run
from tests.record.plausible_inputs import INPUTS, PRODUCT, RUN, record_inputs
from tests.record.reading import cells, text_of


@pytest.fixture(autouse=True)
def recorded(artifacts):
    """A run of sparse inputs, alone and in a sweep beside one of sparse weights."""
    record_inputs()
    record_inputs(dataclasses.replace(RUN, run="a2"), sweep="s1")
    record_run(dataclasses.replace(CONTEXT, run="w2", pattern="50%"), sweep="s1")


def test_a_row_is_written_for_every_input_and_read_again():
    stored = metrics.query_named("sparse_inputs", run="a1")  # in the order in which they are read
    names = [field.name for field in dataclasses.fields(SparseInputRow)]
    assert [SparseInputRow(**{name: row[name] for name in names}) for row in stored] == INPUTS
    with pytest.raises(ValueError, match="sparse_inputs: two rows with the same block, linears"):
        metrics.record(RUN, "sparse_inputs", [INPUTS[0], INPUTS[0]])


def cells_of(run: str) -> list[list[str]]:
    """The results table."""
    return cells(markdown_table(run))


def test_the_page_says_of_every_projection_what_was_dropped_and_kept():
    page = text_of(write_report("a1").read_text())
    assert "mlp.gate_proj, mlp.up_proj 50.0 % 50.2 % 92.1 % 64 256" in page  # (49.21 + 51.21) / 2, (93.12 + 91.12) / 2
    assert "0 mlp.down_proj 50.0 % 51.2 % 97.5 % 0.03210 128 64" in page  # with its threshold, in the fold
    assert "threshold+lpts 50%: 3 inputs" in page


def test_the_page_says_what_was_learned_and_which_products_are_used():
    page = text_of(write_report("a1").read_text())
    assert "0 40 0.04 0.03 -25.0 % 1.5 s" in page
    assert "1 40 0.04 0.02 -50.0 % 1.5 s" in page
    assert "1 token 2 tokens" in page
    assert "64 256 50.0 % float32 compiled 2 2.00× 0.67×" in page  # 0.25 / 0.125 and 0.25 / 0.375
    assert "<strong>2.00×</strong>" in write_report("a1").read_text()  # it is used, and the other is not
    assert "<strong>0.67×</strong>" not in write_report("a1").read_text()


def test_the_page_of_a_sweep_explains_once_and_its_runs_share_a_table():
    record_inputs(dataclasses.replace(RUN, run="a3", method="topk"), sweep="s1")
    page = write_report("s1").read_text()
    for title, caption in (("Sparse inputs", "Inputs of all blocks"), ("Learned corrections", "The block's output")):
        of_section = page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
        shown = text_of(of_section.partition("<details>")[0])
        assert shown.count(caption.replace("'", "&#x27;")) == 1
        assert of_section.partition("<details>")[0].count("<table>") == 1
        heading = '<th scope="rowgroup" colspan="6">{}'
        assert all(heading.format(name) in of_section for name in ("threshold+lpts 50%", "topk 50%"))
    assert page.count("The loss of the whole model there went from 2.5000 to 2.2500 nats per token") == 2
    alone = write_report("a1").read_text()
    assert "rowgroup" not in alone
    assert "nothing was learned. The loss of the whole model there went from 2.5000" in alone


def test_the_page_of_a_sweep_has_each_product_once():
    metrics.record(dataclasses.replace(RUN, run="a2"), "products", [dataclasses.replace(PRODUCT, dense_ms=0.3)])
    assert text_of(write_report("s1").read_text()).count("64 256 50.0 % float32 compiled 2 ") == 1


def test_alone_no_files_are_compared_and_nothing_is_called_zero():
    head, _, dense, row = cells_of("a1")
    assert "Size" not in head
    assert (head[5], dense[5], row[5]) == ("Not read", "0.0 %", "49.9 %")
    page = text_of(write_report("a1").read_text())
    assert "from 6.050 to 7.250 where a token does not need 49.9 % of the weights of the blocks" in page
    assert "Weights not read 49.9 %" in page
    assert "zero" not in page
    assert "Size on disk" not in page
    assert list(drawings("a1", results_of("a1"))) == ["perplexity0", "speeds"]


def test_beside_sparse_weights_a_column_says_what_is_sparse():
    head, _, *rows = cells_of("s1")
    place = head.index("Sparse")
    assert {(row[0], row[place]) for row in rows} == {
        ("dense", "–"),
        ("wanda", "weights"),
        ("threshold+lpts", "inputs"),
    }
    assert "Size" in head
    assert "weights not read" in drawings("s1", results_of("s1"))["perplexity0"][0]


def test_the_list_of_runs_shows_it():
    [line] = [line for line in runs_table().splitlines() if "a1" in line]
    assert "threshold" in line
    assert "49.9 %" in line


def test_the_speeds_of_several_sparsities_are_drawn_against_what_is_not_read():
    record_inputs(dataclasses.replace(RUN, run="a4", pattern="75%"), sweep="s2", sparsity=0.75)
    assert "decode0" not in drawings("s2", results_of("s2"))  # one point shows no course
    record_inputs(dataclasses.replace(RUN, run="a5"), sweep="s2")
    svg, caption = drawings("s2", results_of("s2"))["decode0"]
    assert "decode speed relative to dense" in svg
    assert "threshold+lpts" in svg
    assert "weights not read" in caption

"""The figures of a page: each stands alone too, and draws only what there is."""

import dataclasses
import xml.etree.ElementTree as ElementTree

from tasks.handles import BlockRow
from tasks.record import metrics
from tasks.record.pages.drawing import FOLD, folded, rows_height, standalone
from tasks.record.pages.report import drawings, write_report
from tasks.record.pages.results import results_of
from tests.record.plausible import CONTEXT, record_run


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


def test_a_long_name_is_folded_behind_its_steps_and_nothing_of_it_is_lost():
    name = "ria+refit,drift=0.5+reconstruct,epochs=2+owl,spread=0.2+permute+group"
    lines = folded(name).split("\n")
    assert "".join(lines) == name
    assert len(lines) > 1
    assert max(map(len, lines)) <= FOLD
    assert folded("sparsegpt 2:4") == "sparsegpt 2:4"
    assert rows_height([name]) > rows_height(["wanda"])

"""What a page says of a model that was cut in stages and trained between them."""

import dataclasses
import re

import pytest

from tasks.record.metrics import query_named
from tasks.record.pages.cut_stages import cut_stages, loss_and_parameters
from tasks.record.pages.report import write_report
from tests.record.plausible import record_run
from tests.record.plausible_cuts import CUT, record_cut
from tests.record.reading import text_of


@pytest.fixture(autouse=True)
def recorded(artifacts):
    record_cut()


def test_a_run_without_stages_has_no_such_section():
    record_run()
    assert cut_stages("r1") == ""


def test_the_page_has_a_row_for_each_stage_and_says_how_far_from_its_target_it_is():
    page = text_of(write_report("c1").read_text())
    assert "1 3,148,000 → 2,800,128 +128 2.500 40,960 33.3 % 1e-05 → 2e-05 2.250 → 2.125 12.5 s" in page
    assert "2 2,800,128 → 2,400,000 +0 2.500 81,920 66.7 %" in page
    assert "their target, 128 at most" in page
    assert "Loss in nats a token and parameters of the whole model over the tokens trained" in page


def test_tokens_are_counted_over_the_stages():
    assert [row["tokens_before"] for row in query_named("cut_stages", run="c1")] == [0, 40_960]


def test_the_figure_has_a_circle_for_each_cut_and_a_diamond_for_the_whole_model():
    drawn = loss_and_parameters(query_named("cut_stages", run="c1"))
    assert len(re.findall("<g clip-path", drawn)) == 3
    assert "tokens trained" in drawn


def test_stages_of_several_runs_are_told_by_their_methods():
    single = cut_stages("c1")
    record_cut(dataclasses.replace(CUT, run="c2"), sweep="s1")
    record_cut(dataclasses.replace(CUT, run="c3", method="flap"), sweep="s1")
    both = cut_stages("s1")
    assert "Method" not in single
    assert text_of(both).count("flap") >= 2

"""What a page says of models with fewer parameters: the table, the blocks, how units were scored, what was trained."""

import dataclasses

from tasks.prune.structure.cut_row import CutRow
from tasks.record import metrics
from tasks.record.pages.cuts import budgets_missed, budgets_told, forecasts_told
from tasks.record.pages.report import drawings, write_report
from tasks.record.pages.results import markdown_table, results_of, summary
from tests.record.plausible import record_run
from tests.record.plausible_cuts import CUT, record_cut
from tests.record.reading import cells, text_of


def test_a_cut_model_is_told_by_its_parameters_and_not_by_zeros_that_it_has_not():
    record_cut()
    head, _, dense, cut = cells(markdown_table("c1"))
    assert head[:6] == ["Method", "Pattern", "Perplexity", "nats/token", "bits/byte", "Parameters"]
    assert "Zeros" not in head
    assert dense[5] == "3,148,000"
    assert cut[:2] == ["taylor+repair+recover", "-30%"]
    assert cut[5] == "2,400,000 0.76×"
    assert "with 23.8 % of all parameters cut out" in summary(results_of("c1"))


def test_a_pruned_model_still_has_its_zeros():
    record_run()
    assert "Zeros" in markdown_table("r1")
    assert "Parameters" not in markdown_table("r1")


def test_a_page_has_a_row_for_every_block_and_says_how_units_were_scored_and_what_was_trained():
    record_cut()
    page = text_of(write_report("c1").read_text())
    for widths in ("4 → 3", "8 → 6", "384 → 256", "369,024 → 258,432"):
        assert page.count(widths) == 2
    for error in ("0.0639", "0.0166", "0.0332"):
        assert error in page
    assert "taylor channels 16 of 768 +0.81" in page
    assert "20 81,600 300 in 320 3.250 → 2.938" in page
    assert "Parameters 2.4 M dense 3.15 M" in page


def test_a_budget_that_was_missed_is_told():
    record_cut()
    [missed] = budgets_missed("c1")
    assert "30.0 % of the parameters of the blocks were to go, 53.3 % went" in missed
    assert missed in text_of(write_report("c1").read_text())
    assert budgets_told("c1") == [f"{missed} Stored per layer: it loads with trust_remote_code=True."]
    record_run()
    assert budgets_told("r1") == budgets_missed("r1") == []


def test_what_went_of_the_cost_stands_beside_what_was_asked_and_why_the_form_is_no_simpler():
    record_cut()
    page = text_of(write_report("c1").read_text())
    assert "taylor+repair+recover -30% parameters 30.0 % 53.3 % per_layer" in page
    assert "Not uniform: block 0 has 8 query heads, block 1 6." in page
    met = CutRow(cost="flops", context=2048, asked=0.3, removed=0.295, form="uniform", passed_over=None)
    other = dataclasses.replace(CUT, run="c2")
    record_cut(other)
    metrics.record(other, "cuts", [met])
    page = text_of(write_report("c2").read_text())
    assert "taylor+repair+recover -30% FLOPs at 2,048 tokens 30.0 % 29.5 % uniform" in page
    assert "Not uniform" not in page
    assert budgets_missed("c2") == []
    assert budgets_told("c2") == [
        "taylor+repair+recover -30%: 30.0 % of the FLOPs at 2,048 tokens of the blocks were to go, 29.5 % went."
    ]


def test_a_page_says_which_blocks_went_whole_and_what_other_ways_would_have_cost():
    record_cut()
    page = write_report("c1").read_text()
    assert "Removed whole, by their numbers before: 2, of 369,024 parameters together." in text_of(page)
    assert "Without their FFN, by their numbers before: 0, 1, of 442,368 parameters together." in text_of(page)
    assert "Without their attention" not in text_of(page)
    ways = (
        "head groups 0 35.0 % 2,400,000 3.500 2.625",  # fewest heads first
        "taylor+repair+recover -30% head groups 1 25.0 % 2,400,000 4.500 2.500 yes",
    )
    assert " ".join(ways) in text_of(page)


def test_a_page_holds_the_forecast_of_the_speed_against_what_was_measured():
    record_cut()
    page = text_of(write_report("c1").read_text())
    assert "taylor+repair+recover -30% prefill 32 ms 1.25× 1.30× -3.8 %" in page
    assert "taylor+repair+recover -30% decode 25 ms 1.60× 1.50× +6.7 %" in page
    said = "taylor+repair+recover -30%: {} forecast at {} of dense, measured at {}: an error of {}."
    assert forecasts_told("c1") == [
        said.format("prefill", "1.25×", "1.30×", "-3.8 %"),
        said.format("decode", "1.60×", "1.50×", "+6.7 %"),
    ]
    record_run()
    assert forecasts_told("r1") == []
    assert "Speed forecast" not in write_report("r1").read_text()  # nothing was forecast there


def test_a_cut_model_has_the_memory_of_its_cache_in_the_table():
    record_cut()
    head, _, dense, cut = cells(markdown_table("c1"))
    place = head.index("Cache of 1,000 tokens")
    assert (dense[place], cut[place]) == ("1.0 MB", "786.4 kB")
    record_run()
    assert "Cache" not in markdown_table("r1")


def test_of_several_cuts_a_figure_shows_what_each_bought():
    record_cut()
    assert "frontier0" not in drawings("c1", results_of("c1"))
    for number, (parameters, ppl) in enumerate([(2_800_000, 7.5), (2_400_000, 9.0)]):
        context = dataclasses.replace(CUT, run=f"s{number}", pattern=f"-{10 * number + 10}%")
        record_cut(context, parameters, sweep="s", ppl=ppl)
    drawn = drawings("s", results_of("s"))
    svg, caption = drawn["frontier0"]
    assert "perplexity0" not in drawn  # against zeros, of which there are none
    assert "relative to dense" in svg
    assert all(cost in svg for cost in ("parameters", "FLOPs of the blocks", "bytes on disk", "cache"))
    assert "decode speed" not in svg  # nobody timed them
    assert "a point a cut" in caption
    page = write_report("s").read_text()
    assert page.count("<details><summary>taylor+repair+recover") == 2  # the blocks of each, folded away

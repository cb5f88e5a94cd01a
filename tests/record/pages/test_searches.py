"""What a page says of a search for an allocation, and what MLflow keeps of its curve."""

import dataclasses

from tasks.record.pages.report import write_report
from tasks.record.pages.search_figures import learning_curves
from tasks.record.pages.searches import searches
from tasks.record.registry.tracking import curves_of, log_run
from tests.record.plausible import evaluation, record_run
from tests.record.plausible_searches import SEARCH, move, record_search
from tests.record.reading import text_of


def test_a_page_shows_what_was_found_beside_uniform_and_what_it_was_chosen_from():
    record_search()
    page = write_report("f1").read_text(encoding="utf-8")
    said = text_of(page)
    assert "auto 16,384 of 20,000 12 + 3 known 1.812 3.750 3.250 3.125 7.2 s" in said
    assert "(16 and 24 windows apart). milp is surely better than uniform" in said
    assert "milp 8,192 3.250 [-0.7500, -0.2500] yes uniform 0 3.750 [+0.0000, +0.0000]" in said
    section = searches("f1")
    assert section.count("<figure>") == section.count("<figcaption>") == section.count("aria-label=") - 2 == 4
    assert "reward (higher is better)" in section


def test_a_run_without_a_search_says_nothing_of_one():
    record_run()
    assert searches("r1") == ""


def test_of_a_sweep_the_levels_are_not_drawn_and_every_search_has_a_row():
    record_search(sweep="s1")
    record_search(dataclasses.replace(SEARCH, run="f2", method="wanda+rl"), sweep="s1")
    section = searches("s1")
    assert section.count("<figure>") == 3
    assert text_of(section).count("16,384 of 20,000") == 2
    assert "<figcaption>70%: " not in section


def test_searches_for_other_budgets_have_figures_of_their_own():
    record_search(sweep="s1")
    record_search(dataclasses.replace(SEARCH, run="f2", pattern="60%"), sweep="s1")
    section = searches("s1")
    assert section.count("<figure>") == 6
    for pattern in ("60%", "70%"):
        assert section.count(f"<figcaption>{pattern}: ") == 3


def test_a_search_that_was_found_finished_took_nothing():
    record_search(cached=True)
    assert "16,384 of 20,000 0 + 15 known 1.812 3.750 3.250 3.125 7.2 s earlier" in text_of(searches("f1"))


def test_a_refused_move_is_a_cross():
    rows = [vars(move(step, 3.5, 3.5, accepted=accepted)) for step, accepted in enumerate([True, False])]
    with_refused, without = (
        learning_curves([row | {"run": "f1", "method": "refine"} for row in own]) for own in (rows, rows[:1])
    )
    assert with_refused.count("<path") > without.count("<path")
    assert "reward" not in without


def test_a_curve_has_tokens_for_steps_and_only_what_can_be_drawn():
    moves = [move(0, 3.5, 3.5), move(1, float("inf"), 3.5, reward=None, entropy=None)]
    assert curves_of(moves) == [
        ("search_loss", 3.5, 4096),
        ("search_best", 3.5, 4096),
        ("search_reward", -3.5, 4096),
        ("search_entropy", 2.5, 4096),
        ("search_best", 3.5, 8192),
    ]
    several = curves_of([move(0, 3.5, 3.5, allocator="rl"), move(1, 3.25, 3.25, allocator="evolution")])
    assert ("search_rl_best", 3.5, 4096) in several
    assert ("search_evolution_best", 3.25, 8192) in several


def test_mlflow_has_the_whole_curve():
    moves = [move(step, 4 - step / 1000, 4 - step / 1000) for step in range(700)]
    rows = [evaluation("dense"), evaluation()]
    with log_run(SEARCH, parameters={}, evaluations=rows, moves=moves) as (client, run_id):
        history = client.get_metric_history(run_id, "search_best")
    assert [(point.step, point.value) for point in history] == [(each.tokens, each.best) for each in moves]

"""The lowest perplexity of a pattern is taken among those that drop as much, and a page says where some drop less."""

import dataclasses

from tasks.handles import LinearRow
from tasks.record import metrics
from tasks.record.pages.lowest import DROP_LESS
from tasks.record.pages.report import write_report
from tasks.record.pages.results import markdown_table, results_of, summary
from tests.record.plausible import CONTEXT, evaluation, record_run
from tests.record.reading import text_of


def record(run: str, method: str, sparsity: float, ppl: float, pattern: str = "50%", **changes) -> None:
    context = dataclasses.replace(CONTEXT, run=run, method=method, pattern=pattern, flow="activation")
    record_run(context, sweep="s1", pruned=evaluation(sparsity=sparsity, ppl=ppl, **changes))


def best() -> list[str]:
    return [row["run"] for row in results_of("s1") if row["best"]]


def record_four() -> None:
    record("r1", "topk+rsparse", -0.023, 5.01)
    record("r2", "topk on q_proj", 0.136, 5.651)
    record("r3", "topk", 0.5, 11.51)
    record("r4", "topk+lpts", 0.4901, 10.09)  # a threshold misses what was asked by as much


def test_what_drops_less_is_not_compared_and_that_is_told():
    record_four()
    assert best() == ["r4"]
    assert markdown_table("s1").count("**") == 2
    assert markdown_table("s1").endswith(f"\n\n{DROP_LESS}\n")
    said = "topk+lpts with 10.09 at 50%, among the 2 runs there that drop the most, about 49.0 % of the weights"
    assert f"The lowest after pruning: {said} (the other 2 drop less)." in summary(results_of("s1"))
    page = write_report("s1").read_text()
    assert "Lowest at 50% 10.09 topk+lpts, 49.0 % dropped" in text_of(page)
    assert page.count('<tr class="best">') == 1
    assert text_of(page).count(DROP_LESS) == 1


def test_one_that_is_compared_with_none_is_not_the_lowest():
    record("r1", "topk on q_proj", 0.136, 5.651)
    record("r2", "topk", 0.5, 11.51)
    record("r3", "topk", 0.25, 5.5, pattern="25%")
    assert best() == []
    assert "lowest" not in summary(results_of("s1"))
    assert DROP_LESS in markdown_table("s1")


def test_where_all_drop_as_much_nothing_is_said():
    record("r1", "wanda", 0.5, 20.0)
    record("r2", "magnitude", 0.4999, 30.0, pattern="50%@matrix")
    assert best() == ["r1"]
    assert DROP_LESS not in markdown_table("s1")
    assert "The lowest after pruning: wanda with 20.00 at 50%." in summary(results_of("s1"))


def test_cut_models_of_a_pattern_are_all_compared():
    record("r1", "taylor", 0.0, 20.0, pattern="-30%", parameters=2_000_000)
    record("r2", "padded", 0.3, 30.0, pattern="-30%", parameters=2_100_000)
    assert best() == ["r1"]


def prune(run: str, weights: int, rank: int | None) -> None:
    row = LinearRow(
        block=0,
        linear="mlp.down_proj",
        out_features=64,
        in_features=weights // 64,
        zeros=weights // 2 if rank is None else 5 * weights // 8,
        sparsity=0.5 if rank is None else 0.625,
        error=0.1,
        rank=rank,
        seconds=0.1,
    )
    metrics.record(dataclasses.replace(CONTEXT, run=run), "linears", [row])


def test_factors_beside_more_zeros_have_the_bytes_of_the_pattern_and_count_where_as_many_weights_were_pruned():
    for run, method, ppl, weights, rank in (
        ("r1", "wanda", 20.0, 8192, None),
        ("r2", "wanda+low_rank", 15.0, 8192, 8),
        ("r3", "svd on down_proj", 10.0, 4096, 16),
    ):
        record(run, method, 0.0 if rank else 0.5, ppl)
        prune(run, weights, rank)
    assert best() == ["r2"]
    found = summary(results_of("s1"))
    assert "wanda+low_rank with 15.00 at 50%, among the 2 runs there that drop the most (the other drops less)" in found

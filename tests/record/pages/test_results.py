"""The results table, its columns, and the sentences that sum it up."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from tasks.handles import LinearRow
from tasks.record import metrics
from tasks.record.pages.report import write_report
from tasks.record.pages.results import markdown_table, overlap_of, results_of, summary
from tasks.record.pages.titles import reuse_told
from tests.record.plausible import CONTEXT, evaluation, record_run, record_texts


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
    assert "1 of 3 stages were found finished, from earlier runs." in page


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


def test_seeds_have_a_column_where_they_differ():
    for seed in (0, 1):
        record_run(dataclasses.replace(CONTEXT, run=f"r{seed}", seed=seed), sweep="s1")
    assert "Seed" in markdown_table("s1").splitlines()[0]
    assert "Seed" not in markdown_table("r1").splitlines()[0]


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


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((1, 8, 0), "0 of 8 stages were found finished"),
        ((1, 8, 3), "3 of 8 stages were found finished, from earlier runs"),
        ((7, 50, 18), "18 of 50 stages were found finished: what runs of a sweep share is computed once"),
    ],
)
def test_why_a_stage_was_not_computed(counts: tuple[int, int, int], told: str):
    assert reuse_told(*counts) == told


def test_the_stages_of_a_sweep_are_counted_over_its_runs(swept):
    (found,) = metrics.query_named("cached", run="s1")
    assert found["runs"] == len(metrics.query("select distinct run from runs where sweep = 's1'"))
    assert "stages were found finished: what runs of a sweep share is computed once" in reuse_told(**found)

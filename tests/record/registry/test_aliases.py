"""Aliases move as the docstring of the registry says: to what is comparable and better."""

from pathlib import Path

import pytest

from tasks.handles import Checkpoint
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.pattern import NM, Pattern, Unstructured
from tasks.record import home
from tasks.record.names import pattern_alias
from tests.prune.test_factors import decomposed_llama
from tests.record.publishing import publish, stub

pytestmark = pytest.mark.usefixtures("database")


def test_the_alias_of_a_pattern():
    aliases = ("best-2of4", "best-50pct", "best-50pct", "best-62-5pct", "best-minus-30pct", "best-minus-30pct")
    assert tuple(map(pattern_alias, ("2:4", "50%", "50%@matrix", "62.5%", "-30%", "-30%@channels"))) == aliases


def test_aliases_move_only_to_what_is_comparable_and_better():
    def aliases(run: str, **facts) -> tuple[str, ...]:
        return publish(run, stub(run), **facts).aliases

    assert aliases("r1", ppl=20.0) == ("best", "best-2of4")
    assert aliases("r2", ppl=21.0) == ()
    assert aliases("r5", ppl=float("nan"), pattern="1:4", sparsity=0.75) == ()
    assert aliases("r6", ppl=12.0, pattern="30%", sparsity=0.3) == ("best-30pct",)  # lower, but at more weights
    assert aliases("r7", ppl=18.0, pattern="50%") == ("best", "best-50pct")
    assert aliases("r8", ppl=17.0) == ("best", "best-2of4")
    assert aliases("r9", ppl=17.5, pattern="50%@matrix") == ("best-50pct",)
    assert aliases("r10", ppl=16.0, pattern="60%", sparsity=0.6) == ("best", "best-60pct")


def test_of_one_pattern_what_drops_less_does_not_take_the_alias():
    """A pattern over some linears alone is gentler."""

    def aliases(run: str, **facts) -> tuple[str, ...]:
        return publish(run, stub(run), pattern="50%", **facts).aliases

    assert aliases("r1", ppl=18.0, sparsity=0.121) == ("best", "best-50pct")
    assert aliases("r2", ppl=20.0, sparsity=0.5) == ("best-50pct",)
    assert aliases("r3", ppl=7.0, sparsity=0.363) == ("best",)
    assert aliases("r4", ppl=19.0, sparsity=0.495) == ("best-50pct",)
    assert aliases("r5", ppl=30.0, sparsity=0.53) == ()  # a threshold that drops more than was asked is no better
    assert aliases("r6", ppl=5.0, sparsity=0.004) == ()


def test_weights_with_factors_are_of_their_pattern_whatever_is_zero(tmp_path: Path):
    def packed(pattern: Pattern) -> Checkpoint:
        decomposed_llama(tmp_path / str(pattern), pattern)
        with home.store("packed") as draft:
            pack_checkpoint(tmp_path / str(pattern), draft.path, pattern)
        return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed")

    assert publish("r1", stub("plain"), pattern="50%", ppl=18.0).aliases == ("best", "best-50pct")
    assert publish("r2", packed(Unstructured(0.5)), pattern="50%", ppl=17.0, sparsity=0.0).aliases == ("best-50pct",)
    assert publish("r3", packed(NM(2, 4)), pattern="50%", ppl=17.5, sparsity=0.0).aliases == ()


def test_a_smaller_cut_of_lower_perplexity_does_not_become_the_best():
    def aliases(run: str, removed: float, ppl: float) -> tuple[str, ...]:
        pattern = f"-{100 * removed:g}%"
        return publish(run, stub(run), ppl=ppl, sparsity=0.0, removed=removed, pattern=pattern).aliases

    assert aliases("r1", 0.3, 20.0) == ("best", "best-minus-30pct")
    assert aliases("r2", 0.1, 12.0) == ("best-minus-10pct",)
    assert aliases("r3", 0.4, 19.0) == ("best", "best-minus-40pct")


def test_on_another_text_the_newest_comparison_takes_over():
    assert publish("r1", stub("one"), ppl=20.0).aliases == ("best", "best-2of4")
    assert publish("r2", stub("two"), ppl=float("inf"), dataset_hash="another text").aliases == ()
    assert publish("r3", stub("three"), ppl=90.0, dataset_hash="another text").aliases == ("best", "best-2of4")
    assert publish("r4", stub("four"), ppl=91.0, dataset_hash="another text").aliases == ()

"""Methods of one's own that go wrong: each mistake is told with the method, the linear, and the line of the file."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from tasks.calibrate.observers import InputGram, InputNorm, Observer
from tasks.prune.own import load_pruner
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import parse_pattern
from tasks.prune.weight.pruner import Pruner, ScorePruner, absolute
from tasks.prune.weight.refit import Refit
from tasks.prune.weight.sweep import Sweep
from tasks.prune.weight.update import Leave
from tasks.prune.weight.wanda import Wanda
from tests.cases import WINDOW, batches, llama
from tests.prune.weight.test_pruners import case, seen

PATTERNS = ["2:4", "50%", "50%@matrix"]
IDS = batches((3, WINDOW), (2, WINDOW))


@dataclass(frozen=True, kw_only=True)
class Own(ScorePruner):
    """A score that is given."""

    made: ClassVar = staticmethod(absolute)
    observes: ClassVar[type[Observer]] = InputNorm

    def score(self, weight_OI, stat):
        return type(self).made(weight_OI)


def scoring(made):
    return type("Mine", (Own,), {"made": staticmethod(made)})()


@dataclass(frozen=True, kw_only=True)
class Whole(Magnitude):
    """Prunes, and says that all of it stays."""

    def _prune(self, weight_OI, stat, pattern):
        pruned_OI, keep_OI = super()._prune(weight_OI, stat, pattern)
        return pruned_OI, torch.ones_like(keep_OI)


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Magnitude):
    """Says that others stay than those that do."""

    def _prune(self, weight_OI, stat, pattern):
        pruned_OI, keep_OI = super()._prune(weight_OI, stat, pattern)
        return pruned_OI, keep_OI.roll(1, 1)


@dataclass(frozen=True, kw_only=True)
class Numbered(Magnitude):
    """Gives a keep that is no bool."""

    def _prune(self, weight_OI, stat, pattern):
        pruned_OI, keep_OI = super()._prune(weight_OI, stat, pattern)
        return pruned_OI, keep_OI.float()


@dataclass(frozen=True, kw_only=True)
class Nearly(Magnitude):
    """Leaves one weight too many."""

    def _prune(self, weight_OI, stat, pattern):
        pruned_OI, keep_OI = super()._prune(weight_OI, stat, pattern)
        place = tuple((~keep_OI).nonzero()[0])
        pruned_OI[place], keep_OI[place] = weight_OI[place], True
        return pruned_OI, keep_OI


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("update", [Refit(), Sweep()], ids=str)
def test_the_zeros_are_counted_after_an_update(update, pattern):
    with pytest.raises(ValueError, match=rf"block 0, self_attn.q_proj: weight: Whole\(\) left \d+ .* {pattern} allows"):
        prune_model(llama(), Whole(), parse_pattern(pattern), IDS, update=update)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_weight_too_many_is_refused(pattern):
    weight_OI, _ = case()
    with pytest.raises(ValueError, match=rf"weight: Nearly\(\) left 1 weights more than {pattern} allows"):
        Nearly().prune(weight_OI, None, parse_pattern(pattern))


@pytest.mark.parametrize("kind", [Elsewhere, Numbered])
def test_a_keep_that_is_not_that_of_the_weight_is_refused(kind):
    weight_OI, _ = case()
    with pytest.raises(ValueError, match=rf"^keep: {kind.__name__}\(\) made "):
        kind().prune(weight_OI, None, parse_pattern("2:4"))


@pytest.mark.parametrize("options", [{}, {"update": Leave()}, {"permute": True}], ids=str)
@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda weight_OI: weight_OI.mul_(2).abs(), r"weight: Mine\(\) changed it in place"),
        (lambda weight_OI: weight_OI.abs_(), r"weight: Mine\(\) changed it in place"),
        (lambda weight_OI: weight_OI * torch.nan, r"score: NaN or infinity made by Mine\(\)"),
        (lambda weight_OI: weight_OI[:, :4], r"score: torch.float32 of shape \(32, 4\) made by Mine\(\), "),
        (lambda weight_OI: weight_OI.abs().numpy(), r"score: ndarray made by Mine\(\), a tensor of shape \(32, 32\) "),
        (lambda weight_OI: None, r"score: NoneType made by Mine\(\)"),
        (lambda weight_OI: weight_OI.norms, r"pruner: Mine\(\) failed at .*test_own_methods.py:\d+: AttributeError: "),
        (lambda weight_OI: weight_OI @ weight_OI[:3], r"pruner: Mine\(\) failed at .*py:\d+: RuntimeError: "),
    ],
)
def test_a_score_that_goes_wrong_is_told_with_its_linear(made, says, options):
    with pytest.raises(ValueError, match="^block 0, self_attn.q_proj: " + says) as error:
        prune_model(llama(), scoring(made), parse_pattern("2:4"), IDS, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("observer", [InputNorm, InputGram], ids=lambda kind: kind.__name__)
def test_what_other_linears_read_too_is_not_written_into(observer):
    @dataclass(frozen=True, kw_only=True)
    class Greedy(ScorePruner):
        observes = observer

        def score(self, weight_OI, stat):
            stat.sums()[0].mul_(2)
            return absolute(weight_OI)

    with pytest.raises(ValueError, match=r"^block 0, self_attn.q_proj: stat: .*Greedy\(\) changed it in place, but "):
        prune_model(llama(), Greedy(), parse_pattern("2:4"), IDS)


def test_an_option_without_the_decorator_is_told(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tasks.prune.weight.pruner import ScorePruner, absolute\n\n"
        "class Mine(ScorePruner):\n"
        "    power: float = 2.0\n"
        "    def score(self, weight_OI, stat):\n"
        "        return absolute(weight_OI) ** self.power\n"
    )
    with pytest.raises(ValueError, match=r"Mine in .* has power, which is no option of it without @dataclass"):
        load_pruner(str(path), "Mine")


def test_the_line_of_the_file_is_told(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from tasks.prune.weight.pruner import ScorePruner, absolute\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Mine(ScorePruner):\n"
        "    def score(self, weight_OI, stat):\n"
        "        return absolute(weight_OI.numpy())\n"
    )
    with pytest.raises(ValueError, match=rf"pruner: Mine\(\) failed at {path}:7: AttributeError") as error:
        load_pruner(str(path), "Mine")().prune(torch.ones(4, 8), None, parse_pattern("2:4"))
    assert isinstance(error.value.__cause__, AttributeError)


def test_memory_that_runs_out_is_no_mistake_of_the_method():
    def exhaust(weight_OI):
        raise MemoryError

    with pytest.raises(MemoryError):
        scoring(exhaust).prune(torch.ones(4, 8), seen(Wanda(), torch.ones(3, 8)), parse_pattern("2:4"))


@dataclass(frozen=True, kw_only=True)
class Pair(Magnitude):
    """Forgets the keep."""

    def _prune(self, weight_OI, stat, pattern):
        return super()._prune(weight_OI, stat, pattern)[0]


def test_a_method_without_a_keep_is_told_what_is_missing():
    with pytest.raises(ValueError, match=r"^keep: Pair\(\) made torch.float32 .* alone, the pruned weight and"):
        Pair().prune(torch.ones(2, 8), None, parse_pattern("2:4"))


def its_own_way(made):
    """A method that overrides `prune` itself; `made` gets what Magnitude leaves, and the weight."""

    def prune(self, weight_OI, stat, pattern):
        return made(super(kind, self).prune(weight_OI, stat, pattern), weight_OI)

    kind = dataclass(frozen=True, kw_only=True)(type("ItsOwn", (Magnitude,), {"prune": prune}))
    return kind()


@pytest.mark.parametrize("options", [{}, {"update": Refit()}, {"permute": True}], ids=str)
@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda pruned_OI, weight_OI: weight_OI, r"weight: ItsOwn\(\) left 512 weights more than 2:4 allows"),
        (lambda pruned_OI, weight_OI: pruned_OI * torch.nan, r"weight: ItsOwn\(\) made NaN or infinity"),
        (lambda pruned_OI, weight_OI: pruned_OI[:, :4], r"weight: ItsOwn\(\) made torch.float32 of shape \(32, 4\), "),
        (lambda pruned_OI, weight_OI: None, r"weight: ItsOwn\(\) made NoneType, "),
    ],
)
def test_a_prune_of_its_own_is_what_is_asked_and_checked(made, says, options):
    with pytest.raises(ValueError, match="^block 0, self_attn.q_proj: " + says):
        prune_model(llama(), its_own_way(made), parse_pattern("2:4"), IDS, **options)


def test_what_a_prune_of_its_own_leaves_is_what_stays():
    model = llama()
    rows = prune_model(model, its_own_way(lambda pruned_OI, _: -pruned_OI), parse_pattern("2:4"), None)
    assert {row.sparsity for row in rows} == {0.5}
    expected_OI = Magnitude().prune(llama().model.layers[0].self_attn.q_proj.weight, None, parse_pattern("2:4"))
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, -expected_OI)


@dataclass(frozen=True, kw_only=True)
class Nothing(Pruner):
    """Gives back what is no matrix."""

    def score(self, weight_OI, stat):
        return absolute(weight_OI)

    def _prune(self, weight_OI, stat, pattern):
        return weight_OI.numpy(), weight_OI != 0


def test_a_result_that_is_no_tensor_is_refused():
    with pytest.raises(
        ValueError, match=r"weight: Nothing\(\) made ndarray, torch.float32 of shape \(4, 8\) is needed"
    ):
        Nothing().prune(torch.ones(4, 8), None, parse_pattern("2:4"))

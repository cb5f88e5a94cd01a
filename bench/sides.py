"""The sides that the benchmark compares. Whole runs: the textbook, and Espalier in both of its orders."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor
from transformers import PreTrainedModel

from bench import textbook_walk
from tasks.prune import PRUNERS
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import parse_pattern

TEXTBOOK = "textbook"
ESPALIER = "espalier"  # where there is no order
SAME_ORDER = "espalier, by block"  # calibrates as the textbook does, so its keeps are comparable
ONE_PASS = "espalier, by group"

Side = Callable[[PreTrainedModel, Sequence[Tensor]], object]


def sides_of(method: str, pattern: str) -> dict[str, Side]:
    """What to run, by name; each prunes the model in place. An order exists only where a method looks at the data."""
    sides: dict[str, Side] = {
        TEXTBOOK: partial(_textbook, method, pattern),
        SAME_ORDER: partial(_espalier, method, pattern, "block"),
        ONE_PASS: partial(_espalier, method, pattern, "group"),
    }
    if PRUNERS[method].observes is None:
        del sides[ONE_PASS]
    return sides


def _textbook(method: str, pattern: str, model: PreTrainedModel, batches: Sequence[Tensor]) -> None:
    textbook_walk.prune_model(model, method, parse_pattern(pattern), batches)


def _espalier(method: str, pattern: str, order: str, model: PreTrainedModel, batches: Sequence[Tensor]) -> None:
    prune_model(model, PRUNERS[method](), parse_pattern(pattern), batches, order=order)

"""How fast a cut model will be, before anything is cut: from measured products of the widths that it will have.

    seconds = outside + products after + linears left / linears now × (blocks - products before)

`outside` its blocks and in them the dense model is timed as it runs. The products of its blocks, and those of the cut
model's, are timed on their own (tasks.evaluate.products). What blocks take beyond their products are norms, activations
and what each call costs, whatever its width: so that goes with the number of linears. Machines are shared, so all of
this is measured in turns, the dense model once a turn for all cuts of it, and of each part the least counts.

Axes: B sequences (1), T tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.evaluate.forecast_row import Forecast
from tasks.evaluate.products import Products, Work, heads_in, works_of
from tasks.evaluate.speed import PHASES, now, time_phases
from tasks.model.anatomy import find_blocks, linears_of

TURNS = 7
WARM_UPS = 1


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of one phase: of the dense model, of its blocks therein, and of products `before` and `after` the cut."""

    whole: float
    blocks: float
    before: float
    after: float

    def forecast(self, left: float) -> float:
        """Seconds of the cut model, which has the share `left` of the linears."""
        rest = max(0.0, self.blocks - self.before)  # less is a disturbance: no block is faster than its products
        return self.whole - self.blocks + self.after + left * rest


def forecast_phases(
    dense: PreTrainedModel,
    cuts: Mapping[str, Sequence[Work]],
    *,
    vocab_size: int,
    prompt_tokens: int = 256,
    decode_tokens: int = 16,
    turns: int = TURNS,
    seed: int = 0,
) -> list[Forecast]:
    """A forecast for each cut and phase: how fast the model will be beside `dense`, for one sequence.

    `cuts`: by the subject that the model will be, what its blocks will multiply (tasks.evaluate.products.works_of).
    Linears that a cut leaves as they are lend their weights. Phases are those of tasks.evaluate.speed: prefill of a
    random prompt (from `seed`), then decoding after it.
    """
    works, like = works_of(dense, heads_in(dense)), next(dense.parameters())
    weights = [linear.weight for block in find_blocks(dense)[1] for linear in linears_of(block).values()]
    prompt_BT = torch.randint(0, vocab_size, (1, prompt_tokens), generator=torch.Generator().manual_seed(seed))
    before = Products(works, prompt_tokens, like, weights)
    after = {subject: Products(left, prompt_tokens, like, weights) for subject, left in cuts.items()}
    timed = [time_turn(dense, before, after, prompt_BT, decode_tokens) for _ in range(WARM_UPS + turns)][WARM_UPS:]
    return [
        forecast_from([turn[subject, phase] for turn in timed], subject, phase, _linears(left) / _linears(works))
        for subject, left in cuts.items()
        for phase in PHASES
    ]


def forecast_from(timed: Sequence[Timed], subject: str, phase: str, left: float) -> Forecast:
    """Of one phase, from the least that each part took in any turn: what other work on the machine did not disturb."""
    parts = ("whole", "blocks", "before", "after")
    least = Timed(**{part: min(getattr(turn, part) for turn in timed) for part in parts})
    latency = least.forecast(left)
    return Forecast(subject=subject, phase=phase, latency_ms=1000 * latency, ratio=least.whole / latency)


def time_turn(
    dense: PreTrainedModel, before: Products, after: Mapping[str, Products], prompt_BT: Tensor, decode_tokens: int
) -> dict[tuple[str, str], Timed]:
    """One turn, by subject and phase: the dense model, then the products that it has and those that will be left."""
    with _watched(dense) as of_blocks:
        prefill, decode = time_phases(dense, prompt_BT, decode_tokens)
    first, *others = of_blocks
    wholes = {"prefill": prefill, "decode": decode / decode_tokens}
    blocks = {"prefill": first, "decode": sum(others) / decode_tokens}
    passes = {"prefill": 1, "decode": decode_tokens}
    timed = {}
    for phase in PHASES:
        now_there = _seconds(dense, getattr(before, phase), passes[phase])
        for subject, products in after.items():
            left = _seconds(dense, getattr(products, phase), passes[phase])
            timed[subject, phase] = Timed(whole=wholes[phase], blocks=blocks[phase], before=now_there, after=left)
    return timed


@contextmanager
def _watched(model: PreTrainedModel) -> Iterator[list[float]]:
    """Within, each forward of `model` adds the seconds that its blocks took together."""
    blocks, seconds, started = find_blocks(model)[1], list[float](), list[float]()
    handles = [
        blocks[0].register_forward_pre_hook(lambda *_: started.append(now(model))),
        blocks[-1].register_forward_hook(lambda *_: seconds.append(now(model) - started[-1])),
    ]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def _seconds(model: PreTrainedModel, run: Callable[[], None], passes: int) -> float:
    """Of one pass, on the device of `model`."""
    started = now(model)
    for _ in range(passes):
        run()
    return (now(model) - started) / passes


def _linears(works: Sequence[Work]) -> int:
    return sum(len(work.linears) for work in works)

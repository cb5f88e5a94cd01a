"""Folding an order of a linear's inputs into the linears that make these inputs, so that running costs nothing more.

down(act(gate(x)) * up(x)) stays the same when the columns of down and the rows of gate and up move together, and so
does the output projection of attention with the rows of v, as long as these stay in their head. Which linears those
are, and how wide a head is, no table says: the block itself is asked, by a few forwards of a few tokens with altered
outputs of linears. No weight is touched before the answer is known.

Axes: B windows, T tokens, D model width, O outputs, I inputs of a linear, K heads of the producers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor, nn

from tasks.calibrate.calls import Call
from tasks.model.anatomy import before_each, linears_of
from tasks.model.mode import evaluating

TOLERANCE = 1e-5  # of what the block adds to its hidden states; numbers are moved, not recomputed, so bfloat16 will do


@dataclass(frozen=True, kw_only=True)
class Folding:
    """An order of a linear's inputs folds into the rows of `producers`, if inputs stay within heads of `width`.

    `shared` consecutive heads take one order, because one head of the producers makes them all: in grouped-query
    attention the query heads of one value head. The inputs of an FFN's last linear are one head: any order will do.
    """

    producers: tuple[str, ...]
    width: int
    shared: int

    def rows(self, order_I: Tensor) -> Tensor:
        """The order of the producers' outputs that makes the inputs arrive in `order_I`.

        Raises ValueError for an order that moves an input out of its head, or shared heads differently.
        """
        together = self.width * self.shared
        if order_I.dim() != 1 or len(order_I) % together:
            raise ValueError(f"order: shape {tuple(order_I.shape)} given, a multiple of {together} inputs is needed")
        place_I = torch.arange(len(order_I), device=order_I.device)
        head_start_I = place_I - place_I % self.width
        slot_KSW = (order_I - head_start_I).view(-1, self.shared, self.width)
        slots_W = place_I[: self.width]
        if not (slot_KSW.sort(-1).values == slots_W).all() or not (slot_KSW == slot_KSW[:, :1]).all():
            raise ValueError(
                f"order: inputs leave their head; valid are orders within heads of {self.width} inputs, "
                f"the same for {self.shared} consecutive heads"
            )
        first_KW = place_I[: len(slot_KSW), None] * self.width
        return (first_KW + slot_KSW[:, 0]).flatten()


@torch.no_grad()
def fold(block: nn.Module, linear: str, order_I: Tensor, folding: Folding) -> None:
    """Move the columns of `linear` into `order_I` and the rows of its producers alike, in place.

    The block computes what it did; the new column j is the old column `order_I[j]`. Statistics of the old inputs must
    be put into the same order. Raises ValueError, before anything has moved, for an order that cannot be folded.
    """
    linears = linears_of(block)
    reader = linears[linear]
    if len(order_I) != reader.in_features:
        raise ValueError(f"order: {len(order_I)} inputs given, {linear} has {reader.in_features}")
    rows_O = folding.rows(order_I)
    reader.weight.copy_(reader.weight[:, order_I])
    for name in folding.producers:
        for parameter in linears[name].parameters():  # the weight and, where there is one, the bias
            parameter.copy_(parameter[rows_O])


@torch.no_grad()
def find_folding(
    block: nn.Module, shared_inputs: Sequence[Sequence[str]], linear: str, call: Call, shape: Sequence[int]
) -> Folding | None:
    """Where an order of the inputs of `linear` folds; None where it does not, as in linears that read the residual.

    `shared_inputs`: the block's groups of linears in the order they run, from its anatomy. `call`: how the block is
    called on hidden states of `shape` (windows, tokens, model width); eight tokens are enough, and random numbers, the
    same each time, stand for them. Ask before pruning: in a channel that is zero nobody can be seen at work, and None
    is the answer. Raises ValueError for a name that is not among the groups.
    """
    earlier = list(takewhile(lambda group: linear not in group, shared_inputs))
    if len(earlier) == len(shared_inputs):
        raise ValueError(f"linear: {linear!r} given, valid is one of {', '.join(sum(map(tuple, shared_inputs), ()))}")
    linears = linears_of(block)
    reader = linears[linear]
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(*shape, generator=generator).to(reader.weight)
    run = partial(call, block, hidden_BTD)
    with evaluating(block):
        names, made = _makers(run, reader, {name: linears[name] for group in earlier for name in group})
        if not names:
            return None
        output_BTD = run().float()
        for width in _widths(made, reader.in_features):
            folding = Folding(producers=names, width=width, shared=len(made))
            order_I = _random_order(folding, reader.in_features, generator).to(hidden_BTD.device)
            with _moved(reader, [linears[name] for name in names], order_I, folding.rows(order_I)):
                change_BTD = run().float() - output_BTD
            if change_BTD.norm() <= TOLERANCE * (output_BTD - hidden_BTD).norm():
                return folding
    return None


def _makers(
    run: Callable[[], Tensor], reader: nn.Linear, earlier: dict[str, nn.Linear]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The linears that may be the producers, and the inputs of `reader` that their first output has a part in.

    A producer of O outputs makes I / O inputs of each: of q, k and v only v does, for q and k reach a whole head.
    """
    before_BTI = _arriving(run, reader)
    makers: dict[tuple[int, ...], list[str]] = {}
    for name, linear in earlier.items():
        if reader.in_features % linear.out_features:
            continue
        with _outputs_changed(linear, _first_mirrored):
            reached_I = (_arriving(run, reader) != before_BTI).flatten(0, -2).any(0)
        if int(reached_I.sum()) == reader.in_features // linear.out_features:
            makers.setdefault(tuple(reached_I.nonzero().flatten().tolist()), []).append(name)
    if len(makers) != 1:
        return (), ()
    ((made, names),) = makers.items()
    return tuple(names), made


def _widths(made: tuple[int, ...], inputs: int) -> list[int]:
    """The head widths to try, the widest first. Where one output makes several inputs, their distance tells."""
    widths = [made[1] - made[0]] if len(made) > 1 else list(range(inputs, 1, -1))
    return [width for width in widths if inputs % (width * len(made)) == 0]


def _random_order(folding: Folding, inputs: int, generator: torch.Generator) -> Tensor:
    heads = inputs // (folding.width * folding.shared)
    slot_KW = torch.stack([torch.randperm(folding.width, generator=generator) for _ in range(heads)])
    head_start_KS1 = torch.arange(0, inputs, folding.width).view(heads, folding.shared, 1)
    return (head_start_KS1 + slot_KW[:, None]).flatten()


def _arriving(run: Callable[[], Tensor], reader: nn.Linear) -> Tensor:
    """What `reader` reads in a run of the block."""
    seen: list[Tensor] = []
    with before_each({"reader": reader}, lambda _, x: seen.append(x.clone())):
        run()
    return seen[0]


def _first_mirrored(output: Tensor) -> Tensor:
    """The first feature about 1/2: an activation that is flat on one side shows it."""
    output = output.clone()
    output[..., 0] = 1 - output[..., 0]
    return output


@contextmanager
def _moved(reader: nn.Linear, producers: list[nn.Linear], order_I: Tensor, rows_O: Tensor) -> Iterator[None]:
    """Within, what the producers put out comes in another order, and `reader` gets it in the old one."""
    back_I = order_I.argsort()
    with ExitStack() as hooks:
        for producer in producers:
            hooks.enter_context(_outputs_changed(producer, lambda output: output[..., rows_O]))
        handle = reader.register_forward_pre_hook(lambda _, inputs: (inputs[0][..., back_I],))
        hooks.callback(handle.remove)
        yield


@contextmanager
def _outputs_changed(linear: nn.Linear, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handle = linear.register_forward_hook(lambda _, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()

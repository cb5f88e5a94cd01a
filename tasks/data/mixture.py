"""What recovery trains on: windows of several texts in one order, each text by its weight.

Every text is packed on its own, so each window has one source and a ledger can say what was trained. By its share p of
the weights, the j-th window of a source stands at the place (j + 1/2) / p, and the windows follow each other by place:
every stretch of the training then holds the sources in nearly their shares, and nothing of that is left to chance. The
seed decides which of its windows a source shows next; that depends on no other source.

Axes: T tokens of a text, N windows, W tokens of a window, S windows in the order in which they are trained.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.tokens import cut

UNTRAINED = -100  # the label of a token that is read and not learned, as torch's cross entropy ignores it
EXHAUSTED = ("error", "repeat")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A source of a mixture: its tokens, the label of each (itself or UNTRAINED; None: all are learned), its weight."""

    source: str
    ids_T: Tensor
    labels_T: Tensor | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Each window once, one source after the other, and the order in which they are trained.

    `source_N` are indices into `sources`, `order_S` indices of windows; `windows` are their numbers, `order_S` may hold
    one of them several times.
    """

    ids_NW: Tensor
    labels_NW: Tensor
    source_N: Tensor
    sources: tuple[str, ...]
    order_S: Tensor


def mix(parts: Sequence[Part], *, window: int, tokens: int, seed: int = 0, exhausted: str = "error") -> Mixture:
    """The first `tokens` tokens (whole windows of them) of the mixture of `parts`.

    The end of a text that fills no window is dropped, and so is a window in which nothing would be learned. Where a
    source has fewer windows than its weight asks for, `exhausted` decides: "error", or "repeat", which shows all its
    windows again in a new order. A longer training begins with the same windows in the same order.

    Raises ValueError for no parts, two of one name, a weight that is not more than 0, labels of another shape than ids,
    a source without a window to learn from, fewer tokens than a window, or an exhausted source.
    """
    _check(parts, window, tokens, exhausted)
    packed = [_pack(part, window) for part in parts]
    drawn_S = draw([part.weight for part in parts], tokens // window)
    order_S, start = torch.empty_like(drawn_S), 0
    for index, (part, (ids_NW, _)) in enumerate(zip(parts, packed, strict=True)):
        needed = int((drawn_S == index).sum())
        if needed > len(ids_NW) and exhausted == "error":
            raise ValueError(
                f"tokens: {tokens} given, which take {needed} windows of {part.source}; it has {len(ids_NW)}: "
                "valid are fewer tokens, a smaller weight, or exhausted=repeat"
            )
        order_S[drawn_S == index] = start + shuffled(part.source, len(ids_NW), needed, seed)
        start += len(ids_NW)
    return Mixture(
        ids_NW=torch.cat([ids_NW for ids_NW, _ in packed]),
        labels_NW=torch.cat([labels_NW for _, labels_NW in packed]),
        source_N=torch.arange(len(parts)).repeat_interleave(torch.tensor([len(ids_NW) for ids_NW, _ in packed])),
        sources=tuple(part.source for part in parts),
        order_S=order_S,
    )


def draw(weights: Sequence[float], windows: int) -> Tensor:
    """Which source each window is of, drawn_S. Of two sources at one place the first comes first."""
    shares = [weight / math.fsum(weights) for weight in weights]
    counts = [math.ceil(share * (windows + len(weights))) + 1 for share in shares]  # as many as can be needed
    places = [
        (torch.arange(count, dtype=torch.float64) + 0.5) / share for count, share in zip(counts, shares, strict=True)
    ]
    sources = torch.arange(len(weights)).repeat_interleave(torch.tensor(counts))
    return sources[torch.cat(places).argsort(stable=True)[:windows]]


def shuffled(source: str, windows: int, needed: int, seed: int) -> Tensor:
    """The first `needed` indices of an endless row of epochs, each of them all `windows` in an order of its own."""
    name = int.from_bytes(hashlib.sha256(f"{seed} {source}".encode()).digest()[:8], "big", signed=True)
    generator = torch.Generator().manual_seed(name)
    epochs = [torch.randperm(windows, generator=generator) for _ in range(math.ceil(needed / windows))]
    return torch.cat(epochs)[:needed] if epochs else torch.empty(0, dtype=torch.int64)


def _pack(part: Part, window: int) -> tuple[Tensor, Tensor]:
    """The windows of a text that have something to learn, and their labels. The first token of one is never learned."""
    try:
        ids_NW = cut(part.ids_T, window)
    except ValueError as error:
        raise ValueError(f"{error} (source {part.source})") from error
    labels_NW = ids_NW if part.labels_T is None else cut(part.labels_T, window)
    learns_N = (labels_NW[:, 1:] != UNTRAINED).any(dim=1)
    if not learns_N.any():
        raise ValueError(f"source: {part.source} has no window of {window} tokens with anything to learn")
    return ids_NW[learns_N], labels_NW[learns_N]


def _check(parts: Sequence[Part], window: int, tokens: int, exhausted: str) -> None:
    names = [part.source for part in parts]
    if not parts or len(set(names)) < len(names):
        raise ValueError(f"sources: {', '.join(names) or 'none'} given, valid are one or more different names")
    for part in parts:
        if not 0 < part.weight < math.inf:
            raise ValueError(f"weight: {part.weight} given for {part.source}, valid is more than 0")
        if part.labels_T is not None and part.labels_T.shape != part.ids_T.shape:
            raise ValueError(f"labels: {len(part.labels_T)} given for the {len(part.ids_T)} ids of {part.source}")
    if window < 2:
        raise ValueError(f"window: {window} given, valid is 2 or more: the first token of a window is never learned")
    if tokens < window:
        raise ValueError(f"tokens: {tokens} given, fewer than one window of {window}")
    if exhausted not in EXHAUSTED:
        raise ValueError(f"exhausted: {exhausted!r} given, valid is {' or '.join(EXHAUSTED)}")

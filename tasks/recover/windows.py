"""What recovery is given to train on, and the ledger of what it has really trained.

Axes: N windows, W tokens of a window, S windows in the order in which they are trained.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tasks.recover.objective import learned


class Windows(Protocol):
    """Packed windows, each of one source, and the order in which they are trained (tasks.data.mixture makes them).

    `labels_NW`: the id of a token that is learned, negative elsewhere. `source_N`: indices into `sources`. `order_S`:
    indices of windows, which may repeat.
    """

    @property
    def ids_NW(self) -> Tensor: ...
    @property
    def labels_NW(self) -> Tensor: ...
    @property
    def source_N(self) -> Tensor: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def order_S(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class SourceTokens:
    """What was trained of one source: `read` tokens in `windows`, of which `learned` were predicted and corrected.

    `distinct` of the windows were different ones; where that is less, the source was shown more than once.
    """

    source: str
    windows: int
    distinct: int
    read: int
    learned: int


def check_windows(windows: Windows, needed: int) -> None:
    """ValueError where the order holds fewer windows than needed, or one of these has nothing to learn."""
    if len(windows.order_S) < needed:
        raise ValueError(f"windows: {len(windows.order_S)} in the order, the training takes {needed}")
    empty_N = ~learned(windows.labels_NW).any(dim=1)
    if empty_N[windows.order_S[:needed]].any():
        raise ValueError(f"windows: {int(empty_N.sum())} have no token that is learned, valid is one or more in each")


def ledger(windows: Windows, trained: int) -> tuple[SourceTokens, ...]:
    """The tokens in the first `trained` windows of the order, source by source."""
    order_S = windows.order_S[:trained]
    learned_S, source_S = learned(windows.labels_NW).sum(dim=1)[order_S], windows.source_N[order_S]
    rows = []
    for index, source in enumerate(windows.sources):
        of_it = source_S == index
        count = int(of_it.sum())
        rows.append(
            SourceTokens(
                source=source,
                windows=count,
                distinct=len(order_S[of_it].unique()),
                read=count * windows.ids_NW.shape[1],
                learned=int(learned_S[of_it].sum()),
            )
        )
    return tuple(rows)

"""Which calibration batches a repair is fitted to, and which it is judged on."""

from collections.abc import Sequence

from torch import Tensor

HELD_OUT = 16  # of so many batches one is held out: nothing is fitted to it


def divided(batches: Sequence[Tensor] | None, repair: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Those to fit to, and those held out: every 16th, or at least the last.

    Raises ValueError for what are no batches of ids, and for fewer than two where a `repair` is asked for.
    """
    windows = list(batches) if batches is not None else []
    for ids_BT in windows:
        if ids_BT.dim() != 2 or ids_BT.numel() == 0 or ids_BT.is_floating_point():
            given = f"{ids_BT.dtype} of shape {tuple(ids_BT.shape)}"
            raise ValueError(f"batches: {given} given, token ids of shape (windows, tokens) are needed")
    if repair and len(windows) < 2:
        raise ValueError(f"batches: {len(windows)} given, repair needs 2 or more: one is held out")
    places = range(len(windows))
    held_out = places[HELD_OUT - 1 :: HELD_OUT] or places[-1:]
    return [windows[place] for place in places if place not in held_out], [windows[place] for place in held_out]

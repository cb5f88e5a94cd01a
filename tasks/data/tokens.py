"""Documents to token ids, token ids to windows.

Axes: T tokens of a text, N windows, W tokens of a window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

DOCUMENTS_AT_ONCE = 256  # what a fast tokenizer works on in parallel; its intermediate results are large


def encode(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Each document on its own, with the tokenizer's own special tokens; ids_T (int64), one after the other.

    So short documents are packed: a window may hold the end of one and the beginning of the next.
    """
    ids: list[Tensor] = []
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
        some = list(documents[start : start + DOCUMENTS_AT_ONCE])
        ids += [torch.tensor(own, dtype=torch.int64) for own in tokenizer(some, verbose=False)["input_ids"]]
    return torch.cat(ids) if ids else torch.empty(0, dtype=torch.int64)


def cut(ids_T: Tensor, window: int) -> Tensor:
    """All whole windows of a text in order, ids_NW; what remains at the end is dropped. ValueError if there is none."""
    if window < 1:
        raise ValueError(f"window: {window} given, at least one token is needed")
    if len(ids_T) < window:
        raise ValueError(f"window: text has {len(ids_T)} tokens, fewer than one window of {window}")
    return ids_T[: len(ids_T) // window * window].view(-1, window)


def sample_windows(ids_T: Tensor, window: int, samples: int, seed: int, sampling: str = "random") -> Tensor:
    """`samples` of a text's non-overlapping windows, ids_NW.

    sampling: "random" draws them without replacement by the seed; "first" takes them from the beginning.
    ValueError where the text has fewer windows.
    """
    windows_NW = cut(ids_T, window)
    if not 1 <= samples <= len(windows_NW):
        raise ValueError(f"samples: {samples} asked for; the text has {len(windows_NW)} windows of {window} tokens")
    if sampling == "first":
        return windows_NW[:samples].clone()
    if sampling != "random":
        raise ValueError(f"sampling: {sampling!r} is unknown; choose random or first")
    drawn_N = torch.randperm(len(windows_NW), generator=torch.Generator().manual_seed(seed))[:samples]
    return windows_NW[drawn_N]


def check_vocabulary(ids: Tensor, vocab_size: int) -> None:
    """ValueError where an id is not a row of the model's embedding: the tokenizer belongs to another model."""
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(
            f"tokenizer: its ids go from {ids.min()} to {ids.max()}; the model's vocabulary has {vocab_size} entries"
        )

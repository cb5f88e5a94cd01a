"""Documents to token ids, token ids to windows.

Axes: T tokens of a text, C its characters, N windows, W tokens of a window.
"""

from collections.abc import Sequence

import numpy as np
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


def encode_with_bytes(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """As `encode`; and bytes_T (float64), how many UTF-8 bytes of its document each token stands for.

    A token stands for what lies between the end of the one before it and its own, a special token for nothing; of the
    tokens of one character the first stands for it. So those of a document sum to its bytes. A tokenizer that does not
    tell where its tokens lie (a slow one) has all of a document stand for as many.
    """
    ids: list[Tensor] = []
    bytes_of: list[Tensor] = []
    for start in range(0, len(documents), DOCUMENTS_AT_ONCE):
        some = list(documents[start : start + DOCUMENTS_AT_ONCE])
        tells = bool(getattr(tokenizer, "is_fast", False))
        encoded = tokenizer(some, verbose=False, **({"return_offsets_mapping": True} if tells else {}))
        for number, (text, own) in enumerate(zip(some, encoded["input_ids"], strict=True)):
            ids.append(torch.tensor(own, dtype=torch.int64))
            if tells:
                ends_T = np.fromiter((end for _, end in encoded["offset_mapping"][number]), dtype=np.int64)
                bytes_of.append(_bytes_up_to(text, ends_T))
            else:
                bytes_of.append(torch.full((len(own),), len(text.encode()) / max(1, len(own)), dtype=torch.float64))
    empty = torch.empty(0, dtype=torch.int64)
    return torch.cat([empty, *ids]), torch.cat([empty.double(), *bytes_of])


def scored_bytes(bytes_T: Tensor, window: int) -> int:
    """Of the tokens that perplexity scores: those of whole windows, without the first of each."""
    return round(cut(bytes_T, window)[:, 1:].sum().item())


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


def _bytes_up_to(text: str, ends_T: np.ndarray) -> Tensor:
    """bytes_T of the tokens of a text that end behind so many of its characters; the last has all that remains."""
    codes_C = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    sizes_C = 1 + (codes_C >= 0x80) + (codes_C >= 0x800) + (codes_C >= 0x10000)
    ends_T = np.maximum.accumulate(ends_T)
    ends_T[-1:] = len(text)
    up_to_C = np.concatenate([[0], np.cumsum(sizes_C)])
    return torch.from_numpy(np.diff(up_to_C[ends_T], prepend=0).astype(np.float64))

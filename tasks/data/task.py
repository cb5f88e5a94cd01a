"""The door of the data room: the stages `tokenize` and `tokenize_labelled`."""

import json
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tasks.data.documents import count_bytes
from tasks.data.labelled import read_labelled
from tasks.data.length import check_enough
from tasks.data.mixture import Part, mix
from tasks.data.sources import protocol_of, read
from tasks.data.tokens import check_vocabulary, encode, encode_with_bytes, sample_windows, scored_bytes
from tasks.handles import Checkpoint, Tokens
from tasks.model.load import load_config, load_tokenizer, vocabulary_of
from tasks.record import home
from tasks.stage import open_folder, stage


@stage(reads_input=True, retry_on=ConnectionError, timeout_seconds=3600)
def tokenize(
    source: str,
    identity: str,
    role: str,
    model: Checkpoint,
    window: int,
    samples: int | None = None,
    sampling: str = "random",
    seed: int = 0,
) -> Tokens:
    """Encode a source with the model's tokenizer: `samples` windows for calibration, the whole stream for evaluation.

    `identity` (tasks.data.sources.identity) stands for the content of the source in the cache key.
    """
    folder = open_folder(model)
    documents = read(source, role)
    tokenizer, vocabulary = load_tokenizer(folder), vocabulary_of(load_config(folder))
    facts: dict[str, Any] = {
        "source": source,
        "dataset_hash": documents.hash,
        "documents": len(documents.texts),
        "text_bytes": count_bytes(documents.texts),
        "window": window,
    }
    if samples is not None:
        ids_T = encode(documents.texts, tokenizer)
        check_vocabulary(ids_T, vocabulary)
        check_enough(source, role, len(ids_T), window, samples)
        windows_NW = sample_windows(ids_T, window, samples, seed, sampling)
        return _store({"ids": windows_NW}, facts | {"tokens": windows_NW.numel(), "windows": len(windows_NW)})
    ids_T, bytes_T = encode_with_bytes(documents.texts, tokenizer)
    check_vocabulary(ids_T, vocabulary)
    check_enough(source, role, len(ids_T), window)
    if (protocol := protocol_of(source, role)) is not None:
        ids_T, bytes_T = protocol.scored(ids_T, window), protocol.scored(bytes_T, window)
    facts |= {"tokens": len(ids_T), "windows": len(ids_T) // window, "scored_bytes": scored_bytes(bytes_T, window)}
    return _store({"ids": ids_T}, facts)


@stage(reads_input=True, retry_on=ConnectionError, timeout_seconds=3600)
def tokenize_labelled(source: str, identity: str, model: Checkpoint, window: int) -> Tokens:
    """Encode a source to learn from, all of it: in `labels` stands what is learned, where that is not everything."""
    folder = open_folder(model)
    text = read_labelled(source, load_tokenizer(folder))
    check_vocabulary(text.ids_T, vocabulary_of(load_config(folder)))
    part = Part(source=text.source, ids_T=text.ids_T, labels_T=text.labels_T)
    mix([part], window=window, tokens=window)  # no window with anything to learn is an error here, before any work
    tensors = {"ids": text.ids_T} if text.labels_T is None else {"ids": text.ids_T, "labels": text.labels_T}
    facts: dict[str, Any] = {
        "source": source,
        "dataset_hash": text.hash,
        "documents": text.documents,
        "text_bytes": text.text_bytes,
        "tokens": text.ids_T.numel(),
        "windows": text.ids_T.numel() // window,
        "window": window,
        "learned": text.learned,
    }
    return _store(tensors, facts)


def _store(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Tokens:
    with home.store("tokens") as draft:
        save_file(tensors, draft.path / "tokens.safetensors")
        (draft.path / "manifest.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return Tokens(hash=draft.stored.hash, folder=draft.stored.folder, **facts)

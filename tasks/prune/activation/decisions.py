"""Which product is the faster one, as JSON: measured once per machine and kept.

{machine: [{"shape": {…}, "dense_ms": […], "sparse_ms": […]}, …]}, the milliseconds for each of fast.TOKENS
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tasks.prune.activation.fast import TOKENS, Decision, Shape
from tasks.prune.activation.rows import ProductRow


def decisions_of(machine: str, text: str | None) -> dict[Shape, Decision]:
    """What `text`, as `with_decisions` wrote it, says of `machine`; None says nothing. ValueError for others."""
    try:
        made = [_decision(each) for each in json.loads(text or "{}").get(machine, [])]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"products: the file of decisions cannot be read ({error}); remove it") from error
    return {each.shape: each for each in made if len(each.dense_ms) == len(each.sparse_ms) == len(TOKENS)}


def with_decisions(machine: str, text: str | None, decisions: Mapping[Shape, Decision]) -> str:
    """`text` with these decisions of `machine` beside those that it has."""
    every = decisions_of(machine, text) | dict(decisions)
    known = json.loads(text or "{}") | {machine: [asdict(each) for each in every.values()]}
    return json.dumps(known, indent=1) + "\n"


def product_rows(decisions: Iterable[Decision]) -> list[ProductRow]:
    """A row for each number of tokens of each shape."""
    return [
        ProductRow(
            in_features=each.shape.inputs,
            out_features=each.shape.outputs,
            dropped=each.shape.dropped,
            dtype=each.shape.dtype,
            product=each.shape.product,
            threads=each.shape.threads,
            tokens=tokens,
            dense_ms=dense_ms,
            sparse_ms=sparse_ms,
            sparse=tokens <= each.most_tokens,
        )
        for each in decisions
        for tokens, dense_ms, sparse_ms in zip(TOKENS, each.dense_ms, each.sparse_ms, strict=True)
    ]


def _decision(said: Mapping[str, Any]) -> Decision:
    return Decision(shape=Shape(**said["shape"]), dense_ms=(*said["dense_ms"],), sparse_ms=(*said["sparse_ms"],))

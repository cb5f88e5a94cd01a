"""Espalier's side, in the order that the command line names: in a process of its own, as the others are."""

import sys
from collections.abc import Sequence
from functools import partial

from torch import Tensor
from transformers import PreTrainedModel

from bench.peers_worker import NotOffered, serve
from tasks.prune import PRUNERS
from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import parse_pattern


def prune(order: str, model: PreTrainedModel, batches: Sequence[Tensor], method: str, pattern: str) -> PreTrainedModel:
    """In place. NotOffered where an order is asked of a method that looks at no data."""
    pruner = PRUNERS[method]()
    if pruner.observes is None and order != "block":
        raise NotOffered("an order exists only where a method looks at the data")
    prune_model(model, pruner, parse_pattern(pattern), batches, order=order)
    return model


if __name__ == "__main__":
    serve(partial(prune, sys.argv[1]), "espalier")

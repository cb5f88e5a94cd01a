"""Windows, a pattern and a pruned copy of a model, for the tests of recipes."""

import copy

from tasks.prune.weight.apply import prune_model
from tasks.prune.weight.pattern import parse_pattern
from tests.cases import WINDOW, batches

IDS = batches((3, WINDOW), (2, WINDOW), (2, 9))
TWO_OF_FOUR = parse_pattern("2:4")


def pruned(model, pruner, ids=IDS, pattern=TWO_OF_FOUR, **options):
    model = copy.deepcopy(model)
    return model, prune_model(model, pruner, pattern, ids, **options)

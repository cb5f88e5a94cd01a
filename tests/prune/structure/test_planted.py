"""All salience planted in one head group: a cut keeps that group, in every family and wherever it stands."""

import pytest
import torch

from tasks.calibrate.importance import IMPORTANCES
from tasks.model.units import units_of
from tasks.prune.structure.choose import choose_units
from tasks.prune.structure.width import slice_units
from tests.calibrate.importance.pieces import blocks_of, planted, weights
from tests.cases import FAMILIES, batches

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]


@pytest.mark.parametrize("family", CUTTABLE)
@pytest.mark.parametrize("importance", ["weight_norm", "wanda_sp"])
def test_the_salient_head_group_is_what_is_left(family, importance):
    groups = units_of(FAMILIES[family]())[0].head_groups.count
    for salient in range(groups):
        model = planted(FAMILIES[family], "head_groups", salient, groups)
        expected = [[view.clone() for *_, view in weights(block, "head_groups", salient)] for block in blocks_of(model)]
        scores = IMPORTANCES[importance]().score(model, batches())
        slice_units(model, choose_units(model, scores, {"head_groups": 1 - 1 / groups}).kept)
        for block, planted_views in zip(blocks_of(model), expected, strict=True):
            left = [parameter for _, parameter, _ in weights(block, "head_groups", 0)]
            assert all(torch.equal(whole, view) for whole, view in zip(left, planted_views, strict=True)), salient

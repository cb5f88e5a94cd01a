"""Where only one unit says anything, every importance finds that one, in every family and wherever it stands."""

import pytest

from tasks.calibrate.importance import IMPORTANCES
from tasks.calibrate.importance.leave_one_out import LeaveOneOut
from tests.calibrate.importance.pieces import planted, said_by
from tests.cases import FAMILIES, batches

CUTTABLE = [family for family in FAMILIES if family != "gpt_neox"]
OF_UNITS = [name for name in IMPORTANCES if name not in ("influence", "leave_one_out")]
GRADIENTS = ("taylor", "fisher")
NORM_BEHIND = ("gemma2", "gemma3")  # of attention and FFN: the loss does not depend on the scale of what is alone there


def check(scores, kind, salient, name):
    for block, of_block in enumerate(scores):
        assert of_block[kind].argmax() == salient, (name, block, of_block[kind])


def counts(family):
    groups = 4 if family.startswith("opt") else 2
    return {"head_groups": groups, "query_heads": 4, "channels": 64}


@pytest.mark.parametrize("family", CUTTABLE)
@pytest.mark.parametrize(
    ("kind", "salient"), [("head_groups", 0), ("head_groups", 1), ("query_heads", 2), ("channels", 9)]
)
def test_the_salient_unit_ranks_first(family, kind, salient):
    if kind == "query_heads" and family.startswith("opt"):
        pytest.skip("a group has one query head")
    model = planted(FAMILIES[family], kind, salient, counts(family)[kind])
    for name in OF_UNITS:
        if name in GRADIENTS and family in NORM_BEHIND:
            continue
        if name == "activation" and kind == "query_heads":
            continue  # it sees what v makes, and that belongs to the group
        check(IMPORTANCES[name]().score(model, batches()), kind, salient, name)


@pytest.mark.parametrize("family", CUTTABLE)
@pytest.mark.parametrize("salient", [0, 1])
def test_without_the_salient_head_group_the_model_says_its_own_text_worst(family, salient):
    model = planted(FAMILIES[family], "head_groups", salient, counts(family)["head_groups"])
    check(LeaveOneOut(kinds=("head_groups",)).score(model, [said_by(model)]), "head_groups", salient, "leave_one_out")

import math

import pytest
import torch
from torch import nn

from tasks.train_controller.allocators.features import Summary, block_features, features_of, summary_of
from tasks.train_controller.allocators.judge import divided
from tasks.train_controller.allocators.level_table import alone, level_table, looks_of, table_judge
from tasks.train_controller.allocators.unit_rungs import unit_rungs
from tests.cases import batches, llama
from tests.train_controller.allocators.test_unit_rungs import cut, scores_of

TEXT = batches((4, 16), (4, 16))


def test_a_summary_by_hand():
    assert summary_of(torch.tensor([1.0, 3.0, 8.0])) == Summary(mean=4.0, max=8.0, spread=math.sqrt(26 / 3) / 4)
    assert summary_of(torch.zeros(3)).spread == 0


def test_the_cosine_is_that_of_the_hidden_states_of_the_model_itself():
    model = llama()
    found = block_features(model, TEXT)
    states = [model(ids, output_hidden_states=True).hidden_states for ids in TEXT]
    for block in range(2):  # behind the last block transformers shows the states behind the norm
        pairs = [(each[block].double(), each[block + 1].double()) for each in states]
        cosines = torch.cat([nn.functional.cosine_similarity(*pair, dim=-1).flatten() for pair in pairs])
        assert found[block].cosine == pytest.approx(cosines.mean().item(), abs=1e-6)
        assert 0 <= found[block].outliers < 1


def test_the_table_has_every_part_alone_at_every_level_and_features_differ_between_parts():
    model = llama()
    rungs = unit_rungs(model, scores_of(model), cut(round_to=16))
    judge = table_judge(rungs, divided(torch.cat(TEXT), tokens=64))
    table = list(level_table(judge))
    problem = rungs.problem
    assert problem.rungs == (1, 3) * 3
    assert [(row.block, row.kind, row.rungs) for row in table] == [
        (part.block, part.kind, gone)
        for part, most in zip(problem.parts, problem.rungs, strict=True)
        for gone in range(most + 1)
    ]
    assert judge.forwards == looks_of(problem) == 13
    assert {row.rise for row in table if row.rungs == 0} == {0.0}
    assert [row.share for row in table[:6]] == [0, 0.5, 0, 0.25, 0.5, 0.75]
    last = sum(judge.final_losses(alone(problem, 5, 3))) / 4
    assert table[-1].loss == pytest.approx(last, rel=1e-12)

    features = features_of(problem, rungs.summaries(), block_features(model, TEXT), table)
    rises = {(row.block, row.kind, row.rungs): row.rise for row in table}
    for part in problem.parts:
        assert features[part]["depth"] == part.block / 2
        assert features[part]["is_ffn"] == (part.kind == "ffn")
        assert features[part]["rise"] == rises[part.block, part.kind, 2 if part.kind == "ffn" else 1]
        assert all(map(math.isfinite, features[part].values()))
    assert features[problem.parts[0]]["share_kv"] == pytest.approx(1 / 6)  # one of two groups, in one of three blocks
    assert features[problem.parts[1]]["share_kv"] == 0
    assert features[problem.parts[0]]["cosine"] == features[problem.parts[1]]["cosine"]
    for name in ("depth", "score_mean", "score_spread", "cosine"):
        assert len({features[part][name] for part in problem.parts}) >= 3
    without = features_of(problem, rungs.summaries(), block_features(model, TEXT))
    assert set(features[problem.parts[0]]) - set(without[problem.parts[0]]) == {"rise"}

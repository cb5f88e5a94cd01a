"""torch-pruning's side, where it is installed: what its cuts leave, and the ratio that is searched for a budget."""

import pytest
import torch

from bench import slices_torch_pruning
from bench.peers_environments import ENVIRONMENTS
from bench.slices_cuts import Cell, block_parameters
from bench.slices_torch_pruning import CUTS, HIDDEN_KEPT, MAGNITUDE, TAYLOR, TorchPruning, prune
from bench.texts import WINDOW, Text
from tests.cases import VOCABULARY, WIDTH, llama

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENTS / "torch-pruning" / "requirements.txt").is_file(), reason="torch-pruning is not installed"
)
HEADS = {"num_attention_heads": 8, "head_dim": 8, "max_position_embeddings": WINDOW, "tie_word_embeddings": True}


@pytest.mark.parametrize("cut", CUTS)
def test_widths_heads_and_ties_after_its_cut(cut):
    model = llama(**HEADS).requires_grad_(True)
    prune(model, MAGNITUDE, 0.25, hidden=cut != HIDDEN_KEPT)
    attention, ffn = model.model.layers[0].self_attn, model.model.layers[0].mlp
    width = WIDTH if cut == HIDDEN_KEPT else 24
    assert attention.q_proj.weight.shape == (6 * 8, width)  # of each of two KV heads one query head of four has gone
    assert attention.k_proj.weight.shape == (2 * 8, width)
    assert ffn.down_proj.weight.shape == (width, 48)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    logits_BTV = model(torch.arange(12)[None]).logits
    assert logits_BTV.shape == (1, 12, VOCABULARY)
    assert logits_BTV.isfinite().all()


@pytest.mark.parametrize("importance", [MAGNITUDE, TAYLOR])
def test_the_ratio_nearest_to_the_budget_is_found(tmp_path, monkeypatch, importance):
    monkeypatch.setattr(slices_torch_pruning, "RATIOS", [0.1, 0.3, 0.35, 0.6])
    llama(**HEADS).save_pretrained(tmp_path)
    ids = torch.randint(0, VOCABULARY, (65 * WINDOW,), generator=torch.Generator().manual_seed(0))
    side = TorchPruning(tmp_path, Text(calibration_T=ids, evaluation_T=ids))
    cell = Cell(cut=HIDDEN_KEPT, importance=importance, budget=0.3, repair=False, recover_tokens=0, seed=0)
    model = side.make(cell)
    removed = 1 - block_parameters(model) / block_parameters(llama(**HEADS))
    others = []
    for ratio in slices_torch_pruning.RATIOS:
        other = llama(**HEADS).requires_grad_(True)
        prune(other, MAGNITUDE, ratio, hidden=False)
        others.append(1 - block_parameters(other) / block_parameters(llama(**HEADS)))
    assert abs(removed - 0.3) == min(abs(share - 0.3) for share in others) < max(abs(share - 0.3) for share in others)
    assert all(parameter.grad is None for parameter in model.parameters())

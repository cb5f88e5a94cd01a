"""Calibration windows in batches: all of them once, as many as the device likes, several where they can be."""

import pytest
import torch

from tasks.calibrate.batches import BATCH_TOKENS, BATCHES, batches_of


@pytest.mark.parametrize("device", BATCH_TOKENS)
@pytest.mark.parametrize(("windows", "tokens"), [(1, 32), (5, 4096), (64, 32), (1000, 32), (128, 2048)])
def test_every_window_is_in_one_batch_and_none_is_larger_than_the_device_likes(device, windows, tokens):
    ids_WT = torch.arange(windows * tokens).view(windows, tokens)
    batches = batches_of(ids_WT, device)
    assert torch.equal(torch.cat(batches), ids_WT)
    assert all(len(batch) == 1 or batch.numel() <= BATCH_TOKENS[device] for batch in batches)
    assert len(batches) >= min(windows, BATCHES)

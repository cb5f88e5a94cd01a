"""The calibration windows in batches: as many at once as the device likes."""

import torch
from torch import Tensor

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of one batch: what fits a cache, or fills a GPU
BATCHES = 16  # at least, where there are windows for them: whoever trains holds some of them out


def batches_of(ids_WT: Tensor, device: str) -> tuple[Tensor, ...]:
    """(windows, tokens) each, all of the windows W in their order."""
    windows, tokens = ids_WT.shape
    largest = BATCH_TOKENS[torch.device(device).type] // tokens
    return ids_WT.split(max(1, min(largest, windows // BATCHES)))

"""The example of the golden numbers: a weight of 4 outputs and 8 inputs, norms of its inputs, and tokens."""

import torch

WEIGHT = torch.tensor(
    [
        [4, -1.1, 3.2, 2.3, -5.1, 1.2, 2.1, -3.3],
        [1.3, 2.2, -2.4, 4.1, 3.1, -3.6, 1.4, 0.7],
        [-2.6, 5.2, 1.5, 0.9, 2.7, 4.2, -4.4, 6.1],
        [3.4, 3.7, -1, -6.2, 0.8, 2.8, 5.3, -1.9],
    ],
    dtype=torch.float64,
)
NORMS = torch.tensor([1, 2, 1, 0.5, 1, 3, 0.5, 1], dtype=torch.float64)
TOKENS = "10210101 01102110 11011021 20101101 02010111 10120010 01001201 11110012 00101111 10011100"
INPUTS = torch.tensor([[int(digit) for digit in token] for token in TOKENS.split()], dtype=torch.float64)

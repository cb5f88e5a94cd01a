"""A product that reads only those rows of the transposed weight whose inputs were kept, with what torch has.

embedding_bag sums rows of a table with weights of their own: with W transposed as the table that is W x, over the kept
inputs alone. It hands each token to one thread, so for one token every row is seen as several shorter ones, and each
thread sums a part of the outputs. It reads memory half as fast as a dense product does.

Axes: T tokens, I inputs, O outputs, P parts of the outputs, K kept inputs of all tokens.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

MOST_TOKENS = 8  # beyond, a dense product reads the weight once for so many tokens that it wins


def gather_product(x_TI: Tensor, weight_IO: Tensor, threshold: Tensor | None = None) -> Tensor:
    """(x · 1[|x| > t]) @ weight_IO, (T, O) in the dtype of x. On a CPU; no gradient.

    `threshold`: a scalar t in the dtype of x; None for 0, of an x that is 0 wherever an input was dropped.
    """
    tokens, (inputs, outputs) = len(x_TI), weight_IO.shape
    parts = _parts(tokens, outputs)
    keep_TI = (x_TI.abs() <= (0 if threshold is None else threshold)).logical_not()  # nan is kept, to be seen
    token_K, input_K = keep_TI.nonzero(as_tuple=True)
    value_K, counts_T = x_TI[token_K, input_K], keep_TI.sum(1)
    if parts == 1:
        starts_T = counts_T.cumsum(0) - counts_T
        return embedding_bag(input_K, weight_IO, starts_T, mode="sum", per_sample_weights=value_K)
    rows_PK = input_K * parts + torch.arange(parts)[:, None]
    starts_P = torch.arange(parts) * len(input_K)
    table = weight_IO.view(inputs * parts, outputs // parts)
    made = embedding_bag(rows_PK.flatten(), table, starts_P, mode="sum", per_sample_weights=value_K.repeat(parts))
    return made.view(1, outputs)


def _parts(tokens: int, outputs: int) -> int:
    """Into how many the outputs of one token are divided: one for each thread, where they can be."""
    threads = torch.get_num_threads()
    return threads if tokens == 1 and outputs % threads == 0 else 1

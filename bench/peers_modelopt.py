"""nvidia-modelopt's side: `mts.sparsify`, which knows 2:4 alone. Runs in its own environment.

Its SparseGPT looks at the dense model once, and keeps the weights that the sweep chose but not the sweep's update.
"""

from collections.abc import Sequence

import modelopt.torch.sparsity as mts
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.peers_worker import NotOffered, serve

MODES = {"magnitude": "sparse_magnitude", "sparsegpt": "sparsegpt"}
DAMP = 0.01  # as the other sides; 0.1 is its own choice


def prune(model: PreTrainedModel, batches: Sequence[Tensor], method: str, pattern: str) -> PreTrainedModel:
    """The pruned model with plain linears again. NotOffered for Wanda, and for any pattern but 2:4."""
    if method not in MODES or pattern != "2:4":
        raise NotOffered("it prunes by magnitude or SparseGPT, to 2:4 alone")

    def forward_loop(model: PreTrainedModel) -> None:
        for ids_BT in batches:
            model.base_model(ids_BT, use_cache=False)

    looks = {"forward_loop": forward_loop, "hessian_damp": DAMP} if method == "sparsegpt" else {}
    with torch.no_grad():
        return mts.export(mts.sparsify(model, MODES[method], {"verbose": False, **looks}))


if __name__ == "__main__":
    serve(prune, "nvidia-modelopt")

"""llm-compressor's side: `oneshot` with one modifier, its settings as it ships them. Runs in its own environment."""

from collections.abc import Sequence

from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import MagnitudePruningModifier, SparseGPTModifier, WandaPruningModifier
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from bench.peers_worker import serve

HEAD = ["re:.*lm_head"]  # pruned unless it is left out by name


def prune(model: PreTrainedModel, batches: Sequence[Tensor], method: str, pattern: str) -> PreTrainedModel:
    """In place. `processor` is a stand-in: the windows are ids already."""
    loader = DataLoader([{"input_ids": ids_BT} for ids_BT in batches], batch_size=None)
    recipe = [modifier(method, pattern)]
    oneshot(model=model, recipe=recipe, dataset=loader, processor=object(), clear_sparse_session=True)
    return model


def modifier(method: str, pattern: str) -> MagnitudePruningModifier | SparseGPTModifier | WandaPruningModifier:
    """What `pattern` is in its words: n:m counts the weights that go, and a share is always 50 % here."""
    grouped = ":" in pattern
    if method == "magnitude":
        structure = pattern if grouped else "unstructured"
        return MagnitudePruningModifier(
            targets=["re:.*_proj$"], init_sparsity=0.5, final_sparsity=0.5, start=0, end=1, mask_structure=structure
        )
    structure = "0:0"
    if grouped:
        n, m = map(int, pattern.split(":"))
        structure = f"{m - n}:{m}"
    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    return kind(sparsity=0.5, mask_structure=structure, ignore=HEAD)


if __name__ == "__main__":
    serve(prune, "llmcompressor")

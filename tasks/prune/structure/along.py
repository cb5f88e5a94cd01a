"""What goes with the weights when units are cut out of them: an optimizer's moments, of which each belongs to a weight.

The rows and columns that leave a parameter leave every tensor of its shape that is named after it. What a repair then
does to the weights of a reader changes none of these.

Axes: O outputs, I inputs of a linear.
"""

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks
from tasks.model.units import units_of
from tasks.prune.structure.width import Kept


def slice_along(model: PreTrainedModel, kept: Kept, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` as they belong to `model` once it has only the units in `kept`; it is not cut yet, and stays as it is.

    They are named `<parameter>/<field>`. Each has the shape of its parameter, or is a single number and stays. Raises
    ValueError for units that are not there, and for a tensor of another shape.
    """
    rows, columns = _places(model, kept)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    sliced = {}
    for key, tensor in tensors.items():
        name = key.partition("/")[0]
        if tensor.dim() and tensor.shape != shapes.get(name):
            raise ValueError(f"tensors: {key} has shape {tuple(tensor.shape)}, {name} {tuple(shapes.get(name, ()))}")
        if tensor.dim() and name in rows:
            tensor = tensor[rows[name]]
        if tensor.dim() and name in columns:
            tensor = tensor[:, columns[name]]
        sliced[key] = tensor.contiguous()
    return sliced


def _places(model: PreTrainedModel, kept: Kept) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By parameter: the rows that stay, rows_O of those that lose some, and the columns, columns_I."""
    blocks, every = find_blocks(model)[0], units_of(model)
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    for block, kinds in kept.items():
        for kind, kept_U in kinds.items():
            units = every[block].of(kind)
            for linear, rows_O in units.rows_of(kept_U).items():
                rows |= {f"{blocks}.{block}.{linear}.{field}": rows_O for field in ("weight", "bias")}
            columns[f"{blocks}.{block}.{units.reader}.weight"] = units.columns_of(kept_U)
    return rows, columns

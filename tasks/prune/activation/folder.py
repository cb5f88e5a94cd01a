"""A sparse model as a folder: what is beside the checkpoint of the dense one.

    activation.json         the recipe in words, the pattern of each group of each block, the hash of the dense model
    activation.safetensors  the tensors of the selections and mitigations, by their names in the model

Any software loads the dense model; upon that, `load_sparse` lets the linears read sparse inputs.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from tasks.model.anatomy import dissect
from tasks.prune.activation.apply import SOURCES, Group, Installed, Tensors, put, source_name
from tasks.prune.activation.mitigation import Mitigation
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.selection import Selection
from tasks.prune.activation.sparse_input import split_mitigations
from tasks.prune.sidecar import Sidecar
from tasks.prune.weight.pattern import parse_pattern

FILES = Sidecar(name="activation", format="espalier activation sparsity")

Methods = Mapping[str, type[Selection] | type[Mitigation]]  # by name: what may stand in the index


def save_sparse(
    installed: Installed, recipe: ActivationRecipe, model_hash: str, folder: Path, methods: Methods
) -> None:
    """Write what `recipe` has installed. `model_hash`: of the dense model (tasks.model.load.fingerprint)."""
    tensors: dict[str, Tensor] = {}
    for number, block in enumerate(installed.anatomy.blocks):
        of_block = {f"{number}.{name}": value for name, value in block.state_dict().items()}
        tensors |= {name: each for name, each in of_block.items() if ".prepared." in name or ".facts." in name}
    entries = {
        "selection": _said(recipe.selection, methods),
        "pattern": str(recipe.pattern),
        "mitigations": [_said(each, methods) for each in recipe.mitigations],
        "modules": list(recipe.modules),
        "prefill": recipe.prefill,
        "patterns": [
            {name: str(source.pattern) for name, source in getattr(block, SOURCES, {}).items()}
            for block in installed.anatomy.blocks
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: each.cpu().contiguous() for name, each in sorted(tensors.items())}, folder / FILES.tensors)
    FILES.write_index(folder, model_hash, entries)


def load_sparse(
    model: PreTrainedModel, model_hash: str, folder: Path, methods: Methods
) -> tuple[Installed, ActivationRecipe]:
    """Let `model`, the dense one, read sparse inputs as `folder` says.

    Raises ValueError, and changes nothing, for a folder without such an index, of another model or a later version, a
    method that is not among `methods`, and tensors that are missing or damaged.
    """
    index, tensors = FILES.read(folder, model_hash)
    try:
        recipe = ActivationRecipe(
            selection=_made(index["selection"], methods),
            pattern=parse_pattern(index["pattern"]),
            mitigations=tuple(_made(each, methods) for each in index["mitigations"]),
            modules=tuple(index["modules"]),
            prefill=index["prefill"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"activation: {folder / FILES.index} is no recipe: {error}") from error
    anatomy = dissect(model)
    installed = Installed(model, anatomy, [])
    try:
        for number, (block, groups) in enumerate(zip(anatomy.blocks, recipe.groups(anatomy), strict=True)):
            for group in groups:
                if (said := index["patterns"][number].get(source_name(group))) is not None:
                    put(block, group, recipe, parse_pattern(said), _tensors(tensors, number, group, recipe))
                    installed.groups.append((block, group))
    except KeyError as missing:
        installed.remove()
        raise ValueError(f"activation: {folder / FILES.tensors} has no {missing.args[0]}") from missing
    return installed, recipe


def _tensors(tensors: Mapping[str, Tensor], number: int, group: Group, recipe: ActivationRecipe) -> Tensors:
    """Those of one group. KeyError for the first that is missing."""
    on_input, on_output = split_mitigations(recipe.mitigations)
    source = f"{number}.{SOURCES}.{source_name(group)}"
    return Tensors(
        facts=_below(tensors, f"{source}.facts.", recipe.selection.needs),
        on_input=[_below(tensors, f"{source}.prepared.{place}.", each.needs) for place, each in enumerate(on_input)],
        on_output={
            name: [
                _below(tensors, f"{number}.{name}.prepared.{place}.", each.needs)
                for place, each in enumerate(on_output)
            ]
            for name in group
        },
    )


def _below(tensors: Mapping[str, Tensor], prefix: str, names: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensors[prefix + name] for name in names}


def _said(method: Any, methods: Methods) -> dict[str, Any]:
    (name,) = (name for name, kind in methods.items() if kind is type(method))
    return {"method": name} | asdict(method)


def _made(said: dict[str, Any], methods: Methods) -> Any:
    if said["method"] not in methods:
        raise ValueError(f"activation: the method {said['method']!r} is not known; valid is {', '.join(methods)}")
    return methods[said["method"]](**{name: value for name, value in said.items() if name != "method"})

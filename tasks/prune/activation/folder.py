"""A sparse model as a folder: what is beside the checkpoint of the dense one.

    activation.json         the recipe in words, the pattern of each group of each block, the hash of the dense model
    activation.safetensors  the tensors of the selections and mitigations, by their names in the model

Any software loads the dense model; upon that, `load_sparse` lets the linears read sparse inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import dissect
from tasks.prune.activation.apply import SOURCES, Group, Installed, Tensors, put, source_name
from tasks.prune.activation.mitigation import Mitigation
from tasks.prune.activation.recipe import ActivationRecipe
from tasks.prune.activation.selection import Selection
from tasks.prune.activation.sparse_input import split_mitigations
from tasks.prune.sidecar import Sidecar
from tasks.prune.weight.pattern import Pattern, parse_pattern

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
    method that is not among `methods`, patterns that do not fit the model, and tensors that are missing or damaged.
    """
    index, tensors = FILES.read(folder, model_hash)
    anatomy = dissect(model)
    try:
        recipe = ActivationRecipe(
            selection=_made(index["selection"], methods, Selection),
            pattern=parse_pattern(index["pattern"]),
            mitigations=tuple(_made(each, methods, Mitigation) for each in index["mitigations"]),
            modules=tuple(index["modules"]),
            prefill=index["prefill"],
        )
        patterns = _patterns(index["patterns"], recipe, recipe.groups(anatomy))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"activation: {folder / FILES.index} is no recipe: {error}") from error
    made = [
        (anatomy.blocks[number], group, pattern, _tensors(tensors, number, group, recipe))
        for number, group, pattern in patterns
    ]
    for block, group, pattern, of_group in made:
        put(block, group, recipe, pattern, of_group)
    return Installed(model, anatomy, [(block, group) for block, group, *_ in made]), recipe


def _patterns(
    said: Sequence[Mapping[str, str]], recipe: ActivationRecipe, groups: Sequence[Sequence[Group]]
) -> list[tuple[int, Group, Pattern]]:
    """Of each block's groups those that have one: the others read whole inputs."""
    if len(said) != len(groups):
        raise ValueError(f"activation: patterns of {len(said)} blocks are stored, the model has {len(groups)}")
    made: list[tuple[int, Group, Pattern]] = []
    for number, (of_block, own) in enumerate(zip(said, groups, strict=True)):
        names = {source_name(group): group for group in own}
        for name, text in of_block.items():
            if name not in names:
                raise ValueError(f"activation: block {number} has no input {name!r}, valid is {', '.join(names)}")
            made.append((number, names[name], parse_pattern(text)))
            recipe.check_pattern(made[-1][2], number, names[name])
    return made


def _tensors(tensors: Mapping[str, Tensor], number: int, group: Group, recipe: ActivationRecipe) -> Tensors:
    """Those of one group, where its weights are. ValueError for the first that is missing or damaged."""
    on_input, on_output = split_mitigations(recipe.mitigations)
    source = f"{number}.{SOURCES}.{source_name(group)}"
    every = [*group.values()]
    return Tensors(
        facts=_below(tensors, f"{source}.facts.", recipe.selection, every),
        on_input=[_below(tensors, f"{source}.prepared.{place}.", each, every) for place, each in enumerate(on_input)],
        on_output={
            name: [
                _below(tensors, f"{number}.{name}.prepared.{place}.", each, [linear])
                for place, each in enumerate(on_output)
            ]
            for name, linear in group.items()
        },
    )


def _below(
    tensors: Mapping[str, Tensor], prefix: str, method: Selection | Mitigation, linears: Sequence[nn.Linear]
) -> dict[str, Tensor]:
    """What `method` needs of these linears, whole: finite floats of its shape."""
    outputs, inputs = sum(each.out_features for each in linears), linears[0].in_features
    sizes: dict[str, Any] = {**vars(method), "inputs": inputs, "outputs": outputs}
    found = {}
    for name, axes in method.needs.items():
        if (tensor := tensors.get(prefix + name)) is None:
            raise ValueError(f"activation: {FILES.tensors} has no {prefix + name}")
        shape = tuple(sizes[axis] for axis in axes)
        if tensor.shape != shape or not tensor.is_floating_point() or not tensor.isfinite().all():
            given = f"{str(tensor.dtype).removeprefix('torch.')} of shape {(*tensor.shape,)}"
            raise ValueError(
                f"activation: {prefix + name} of {FILES.tensors} is {given}, valid is finite floats of shape {shape}"
            )
        found[name] = tensor.to(linears[0].weight.device)
    return found


def _said(method: Any, methods: Methods) -> dict[str, Any]:
    (name,) = (name for name, kind in methods.items() if kind is type(method))
    return {"method": name} | asdict(method)


def _made(said: dict[str, Any], methods: Methods, kind: type) -> Any:
    able = [name for name, each in methods.items() if issubclass(each, kind)]
    if said["method"] not in able:
        raise ValueError(f"activation: the method {said['method']!r} is not known; valid is {', '.join(able)}")
    return methods[said["method"]](**{name: value for name, value in said.items() if name != "method"})

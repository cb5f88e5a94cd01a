"""What a model's folder may say: it may come from a stranger, so no name, link, number or form in it is taken on trust.

transformers and safetensors guard what they read themselves; here is what stands around them: the JSON of an index, the
files that it names, links, and configurations that would fetch code or take memory without end.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BLOCKS = ("num_hidden_layers", "n_layer", "num_layers")  # how configurations call the number of blocks
PER_BYTE = 2  # parameters that a byte of weights can hold, in 4 bits each


def read_object(file: Path, field: str) -> dict[str, Any]:
    """The JSON object in a file. ValueError, which begins with `field`, for anything else, however deeply nested."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{field}: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{field}: {file} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{field}: {file} is nested too deeply to be read") from error
    if not isinstance(found, dict):
        raise ValueError(f"{field}: {file} holds {type(found).__name__}, valid is a JSON object")
    return found


def file_in(folder: Path, name: Any, field: str) -> Path:
    """The safetensors file of this name in `folder`. ValueError for a name that is none, or leads out of the folder."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
        raise ValueError(f"{field}: an index in {folder} names the file {name!r}, valid is a .safetensors beside it")
    return folder / name


def check_links(folder: Path, files: Iterable[Path]) -> None:
    """Raise ValueError for a link out of `folder`: what it leads to would be copied into whatever is made of the model.

    In the hub's cache a snapshot is made of links into `blobs`, beside `snapshots`: these are its own.
    """
    whole = folder.resolve()
    own = whole.parents[1] / "blobs" if whole.parent.name == "snapshots" else whole
    for file in files:
        if not any(file.resolve().is_relative_to(place) for place in (whole, own)):
            raise ValueError(
                f"model: {file} is a link out of its folder, to {file.resolve()}; give a folder that holds its files"
            )


def check_blocks(config: Mapping[str, Any], tensors: int, folder: Path) -> None:
    """Raise ValueError for more blocks than there are tensors: the mere outline of such a model would fill memory."""
    parts = [part for part in (config, config.get("text_config")) if isinstance(part, Mapping)]
    for name, blocks in ((name, part.get(name)) for part in parts for name in BLOCKS):
        if isinstance(blocks, int) and blocks > tensors:
            given = f"{name} {blocks} given in config.json of {folder}"
            raise ValueError(f"model: {given}, whose weights are {tensors} tensors")


def check_parameters(parameters: int, stored_bytes: int, folder: Path) -> None:
    """Raise ValueError for more parameters than the weights can hold: transformers would make room for the missing."""
    if parameters > PER_BYTE * stored_bytes:
        raise ValueError(
            f"model: config.json in {folder} makes {parameters} parameters, its weights are {stored_bytes} bytes"
        )


def check_no_kernels(config: Any, folder: Path) -> None:
    """Raise ValueError for an attention that is code on the hub, which transformers would fetch and run."""
    if config.get_text_config() is not config:
        check_no_kernels(config.get_text_config(), folder)
    for name, value in vars(config).items():
        named = value.values() if isinstance(value, Mapping) else (value,)
        if name.endswith("implementation_internal") and any(isinstance(each, str) and "/" in each for each in named):
            raise ValueError(f"model: config.json in {folder} asks for code from the hub, {value!r}, which is not run")

"""From the name of a model to a model in memory, and back into a folder."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from tasks.model.folder import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    WEIGHT_FILES,
    check_folder,
    fingerprint,
    tensor_names,
    tokenizer_files,
    weight_bytes,
    weight_shards,
)
from tasks.model.trust import check_blocks, check_no_kernels, check_parameters
from tasks.network import PASSING, hub_answers, is_refusal
from tasks.secret import without_secrets

__all__ = [
    "BUILTIN",
    "check_folder",
    "check_tokenizer",
    "context_of",
    "fingerprint",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_from",
    "resolve",
    "save_model",
    "vocabulary_of",
    "weight_bytes",
]

BUILTIN = Path(__file__).parent / "builtin"
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a model: "builtin", a folder, or a name on the hub such as org/name, downloaded where it must be.

    Raises ValueError for anything else, and at once, not after time-outs, for a hub name that is not in the local cache
    while the hub does not answer; ConnectionError where it answers and yet fails: the same call may succeed later.
    """
    if name_or_path == "builtin":
        return BUILTIN
    if Path(name_or_path).expanduser().exists():
        return Path(name_or_path).expanduser()
    if HUB_NAME.fullmatch(str(name_or_path)):
        return _from_hub(str(name_or_path))
    raise ValueError(f"model: {name_or_path} is neither a folder here, nor a hub name such as org/name, nor builtin")


def load_config(folder: Path, *, run_code: bool = False) -> PreTrainedConfig:
    """The model's configuration; `run_code` as of `load_model`. ValueError where transformers does not know it."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=run_code)
    except Exception as error:  # whatever it raises over a file, it is the file that cannot be used
        if "trust_remote_code" in str(error):
            valid = "a model that transformers has itself, such as a cut exported as uniform or padded"
            raise ValueError(
                f"model: {folder} brings code of its own, which is not run here; valid is {valid}"
            ) from error
        raise ValueError(f"model: config.json in {folder} cannot be used: {_in_short(error)}") from error
    check_no_kernels(config, folder)
    return config


def context_of(config: PreTrainedConfig) -> int | None:
    """The most tokens that the model was made for; None where its kind has no such limit.

    Of the part that reads text: a model of images and text keeps the sizes of its language model apart.
    """
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def vocabulary_of(config: PreTrainedConfig) -> int:
    """How many tokens the model has an embedding for, of the part that reads text."""
    return config.get_text_config().vocab_size


def load_model(folder: Path, device: str = "cpu", *, run_code: bool = False) -> PreTrainedModel:
    """The causal language model stored in `folder`, in the dtype it has there, in eval mode, on `device`.

    Nothing is downloaded. `run_code`: run the modeling file that the folder brings, which is for folders that this
    project has written; no code otherwise. Raises ValueError where the weights do not fit the configuration exactly:
    transformers would initialise what is missing at random.
    """
    model_class: Any = AutoModelForCausalLM
    if not run_code:
        shards = weight_shards(folder)
        stored = sum(len(tensor_names(shard)) for shard in shards), sum(shard.stat().st_size for shard in shards)
        model_class = _model_class(load_config(folder), folder, *stored)
    local = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": run_code}
    return _load_strictly(model_class, folder, folder, **local).to(device)


def model_from(weights: dict[str, Tensor], folder: Path, device: str = "cpu") -> PreTrainedModel:
    """As `load_model`, from `weights` in memory, named as in a checkpoint; `folder` holds the configuration alone."""
    config, stored_bytes = load_config(folder), sum(weight.nbytes for weight in weights.values())
    model_class = _model_class(config, folder, len(weights), stored_bytes)
    model = _load_strictly(model_class, None, folder, config=config, state_dict=weights)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.to(device)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer stored in `folder`. Raises ValueError where transformers cannot read it."""
    try:
        with _quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ValueError(f"model: the tokenizer in {folder} cannot be read: {_in_short(error)}") from error


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raises ValueError where the tokenizer can produce an id that the model has no embedding for."""
    token, highest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    vocabulary = vocabulary_of(config)
    if highest >= vocabulary:
        raise ValueError(f"tokenizer: {token!r} has id {highest}, the model's vocabulary is 0 to {vocabulary - 1}")


def save_model(model: PreTrainedModel, tokenizer_source: Path, folder: Path) -> None:
    """Write `model` as safetensors with its configuration, and copy the tokenizer's files; same weights, same bytes."""
    with _quiet():
        model.save_pretrained(folder)
    for file in tokenizer_files(tokenizer_source):
        shutil.copyfile(file, folder / file.name)


def _from_hub(name: str) -> Path:
    if not hub_answers():
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError as error:
            raise ValueError(
                f"model: {name} is no folder here nor in the hub's local cache, and the hub does not answer; "
                f"give the path of a folder, or run `hf download {name}` once with a network"
            ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=[*CONFIG_FILES, *WEIGHT_FILES, *TOKENIZER_FILES]))
    except PASSING as error:
        if is_refusal(error):
            raise ValueError(f"model: {name} cannot be had from the hub: {_first_line(error)}") from error
        raise ConnectionError(f"model: {name}: the hub failed: {_first_line(error)}") from error


def _model_class(config: PreTrainedConfig, folder: Path, tensors: int, stored_bytes: int) -> type[PreTrainedModel]:
    """Of the model whose weights are so many `tensors` of `stored_bytes` in all, which the configuration must fit."""
    check_blocks(config.to_dict(), tensors, folder)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # nothing is computed here, so it is the configuration that cannot be used
        raise ValueError(f"model: {config.model_type} is no causal language model: {_in_short(error)}") from error
    check_parameters(sum(parameter.numel() for parameter in model.parameters()), stored_bytes, folder)
    return type(model)


def _load_strictly(model_class: Any, source: Path | None, folder: Path, **how: Any) -> Any:
    """Load with `from_pretrained`; whatever it would only warn of is an error that says where and what."""
    try:
        with _quiet():  # its table of misfits would stand before our one line
            model, report = model_class.from_pretrained(
                source, dtype="auto", ignore_mismatched_sizes=True, output_loading_info=True, **how
            )
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ValueError(f"model: {folder} cannot be loaded: {_in_short(error)}") from error
    for misfit in ("missing", "unexpected", "mismatched"):
        names = sorted(key if isinstance(key, str) else key[0] for key in report[f"{misfit}_keys"])
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"model: {folder} does not fit its config.json, {misfit}: {', '.join(names[:3])}{more}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its progress bars and warnings; its settings are restored."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return without_secrets(str(error).strip().partition("\n")[0])


def _in_short(error: Exception) -> str:
    """The first line of a ValueError; of others, whose messages are no sentences, the type and two lines."""
    if isinstance(error, ValueError):
        return _first_line(error)
    return f"{type(error).__name__}: {' '.join(' '.join(str(error).strip().splitlines()[:2]).split())}"

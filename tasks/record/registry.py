"""The model registry: every pruned model is a version of `espalier-<model>`, and two kinds of alias say which is best.

`best-<pattern>`, such as `best-2of4` and `best-50pct`, is the version with the lowest perplexity among those of that
pattern. `best` moves from the version that has it only to one that is at least as sparse (counted zeros, in whole
percent) and has a lower perplexity: it never buys quality with size. The first version of a model takes it.

Perplexities are compared only on the same text, in the same window, for the same dense model. A version that was
measured otherwise takes no alias from another, however good its number looks.
"""

import math
import re
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.handles import Checkpoint, Context, EvaluationRow
from tasks.record import home
from tasks.record.loader import copy_loader
from tasks.record.tracking import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

COMPARABLE = ("model_hash", "dataset_hash", "window")


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version, and the aliases that it holds."""

    name: str
    version: str
    aliases: tuple[str, ...]


def publish(context: Context, packed: Checkpoint, evaluation: EvaluationRow, run_id: str) -> Version:
    """Register the packed checkpoint as a version and let it take the aliases it deserves.

    `run_id` is MLflow's, from tracking.log_run. The same checkpoint is registered once, whoever publishes it again.
    Raises home.Damaged if the packed folder no longer has the content of its hash.
    """
    home.verify(packed)
    name = f"espalier-{context.model}"
    with tracking() as client:
        found = client.search_model_versions(f"name = '{name}' and tags.checkpoint = '{packed.hash}'")
        version = found[0] if found else _register(client, name, context, packed, evaluation, run_id)
        _take_aliases(client, version)
        aliases = client.get_model_version(name, version.version).aliases
    return Version(name=name, version=str(version.version), aliases=tuple(sorted(aliases)))


def load_registered(name: str, version: str, device: str = "cpu") -> tuple[Any, Any]:
    """The model and tokenizer of a registered version, given by its number or by an alias such as "best-2of4".

    Raises ValueError if there is no such version, home.Damaged if its files are not those that were registered.
    """
    from transformers import AutoTokenizer

    from tasks.prune.pack import load_packed

    with tracking() as client:
        found = _find(client, name, version)
        checkpoint = found.tags["checkpoint"]
        folder = Path(client.get_model_version_download_uri(name, found.version), "artifacts", checkpoint)
    home.verify(Checkpoint(hash=checkpoint, folder=str(folder), kind="packed"))
    return load_packed(folder, device), AutoTokenizer.from_pretrained(folder)


def _find(client: "MlflowClient", name: str, version: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        if version.isdecimal():
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        models = client.search_registered_models(f"name = '{name}'")
        known = ", ".join(sorted(models[0].aliases)) if models else "no versions"
        raise ValueError(
            f"version: {name} has no {version!r}; give a number, or one of its aliases: {known}"
        ) from error


def _register(
    client: "MlflowClient", name: str, context: Context, packed: Checkpoint, evaluation: EvaluationRow, run_id: str
) -> "ModelVersion":
    """Copy the packed folder into MLflow's files and make a version of it; its tags are there from its first moment."""
    import mlflow

    tags = {
        "method": context.method,
        "pattern": context.pattern,
        "seed": str(context.seed),
        "run": context.run,
        "checkpoint": packed.hash,
        "model_hash": context.model_hash,
        "dataset_hash": context.dataset_hash,
        "window": str(evaluation.window),
        "ppl": repr(evaluation.ppl),
        "percent_zero": str(round(100 * evaluation.sparsity)),
    }
    with tempfile.TemporaryDirectory() as aside, mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=re.sub(r"[^\w-]+", "-", f"{context.method}-{context.pattern}"),
            python_model=str(Path(__file__).with_name("registered.py")),
            artifacts={"packed": str(home.locate(packed.folder))},
            code_paths=[str(copy_loader(Path(aside)))],
            pip_requirements=[f"{package}=={version}" for package, version in _requirements().items()],
            tags=tags,
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, logged.model_uri, run_id, tags=tags, model_id=logged.model_id)


def _take_aliases(client: "MlflowClient", version: "ModelVersion") -> None:
    """Move the aliases to this version where the rules at the top of this file say so."""
    if not math.isfinite(float(version.tags["ppl"])):
        return
    aliases = client.get_registered_model(version.name).aliases
    for alias in (pattern_alias(version.tags["pattern"]), "best"):
        holder = client.get_model_version(version.name, aliases[alias]) if alias in aliases else None
        if holder is None or (_is_better(version, holder) and (alias != "best" or _is_as_sparse(version, holder))):
            client.set_registered_model_alias(version.name, alias, version.version)


def pattern_alias(pattern: str) -> str:
    """best-2of4 for 2:4, best-50pct for 50% however its zeros are chosen (50%@matrix): what MLflow allows in a name."""
    size = pattern.partition("@")[0].replace(":", "of").replace("%", "pct")
    return "best-" + re.sub(r"[^\w-]+", "-", size)


def _is_better(version: "ModelVersion", holder: "ModelVersion") -> bool:
    comparable = all(version.tags[name] == holder.tags[name] for name in COMPARABLE)
    return comparable and float(version.tags["ppl"]) < float(holder.tags["ppl"])


def _is_as_sparse(version: "ModelVersion", holder: "ModelVersion") -> bool:
    return int(version.tags["percent_zero"]) >= int(holder.tags["percent_zero"])


def _requirements() -> dict[str, str]:
    """The versions that made the model, without the build (`+cpu`), which no index offers."""
    packages = ("torch", "transformers", "safetensors")
    return {package: metadata.version(package).partition("+")[0] for package in packages}

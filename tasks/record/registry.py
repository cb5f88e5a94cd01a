"""The model registry: every pruned model is a version of `espalier-<model>`, and two kinds of alias say which is best.

`best-50` is the version with the lowest perplexity among those with 50 % zeros (counted, in whole percent; so 2:4 and
50 % compete, at the same number of weights kept). `best` moves to a version only if it is at least as sparse as the one
that has it and its perplexity is lower: it never trades size for quality, and a first version takes it.

Perplexities count as comparable only on the same text, in the same window, for the same dense model. A version that was
measured otherwise takes no alias from another, however good its number looks.
"""

import re
import tempfile
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.handles import Checkpoint, Context, EvaluationRow
from tasks.record import home
from tasks.record.tracking import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LOADER = ("prune/pack.py", "prune/weight/pattern.py")  # what a process without this project needs to unpack a model
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
    """The model and tokenizer of a registered version, given by its number or by an alias such as "best-50".

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
            code_paths=[str(_loader(Path(aside)))],
            pip_requirements=[f"{package}=={version}" for package, version in _requirements().items()],
            tags=tags,
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, logged.model_uri, run_id, tags=tags, model_id=logged.model_id)


def _take_aliases(client: "MlflowClient", version: "ModelVersion") -> None:
    """Move `best-<percent>` and `best` to this version where the rules at the top of this file say so."""
    percent = version.tags["percent_zero"]
    for alias in (f"best-{percent}", "best"):
        holder = _holder(client, version.name, alias)
        if holder is None or (_is_better(version, holder) and int(percent) >= int(holder.tags["percent_zero"])):
            client.set_registered_model_alias(version.name, alias, version.version)


def _is_better(version: "ModelVersion", holder: "ModelVersion") -> bool:
    comparable = all(version.tags[name] == holder.tags[name] for name in COMPARABLE)
    return comparable and float(version.tags["ppl"]) < float(holder.tags["ppl"])


def _holder(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    aliases = client.get_registered_model(name).aliases
    return client.get_model_version(name, aliases[alias]) if alias in aliases else None


def _loader(folder: Path) -> Path:
    """A package `tasks` in `folder` with only the modules that unpack a model."""
    package = folder / "tasks"
    for name in LOADER:
        copy = package / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(resources.files("tasks").joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    for place in (package, *(path for path in package.rglob("*") if path.is_dir())):
        (place / "__init__.py").touch()
    return package


def _requirements() -> dict[str, str]:
    """The versions that made the model, without the build (`+cpu`), which no index offers."""
    packages = ("torch", "transformers", "safetensors")
    return {package: metadata.version(package).partition("+")[0] for package in packages}

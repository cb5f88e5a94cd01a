"""The model registry: each pruned model is a version of its dense model's name; two kinds of alias say which is best.

The name is `espalier-<model>-<hash>` (tasks.record.names), so all versions of a name come from one dense model.
`best-<pattern>`, such as `best-2of4` and `best-50pct`, is the version with the lowest perplexity among those of that
pattern of which as much is gone as it asks for; a pattern of some linears alone, or net of what is read besides, drops
less, and such a version has the alias only until a whole one takes it. `best` moves from the version that has it only
to one of which at least as much is gone (counted zeros, and the parameters that were cut out, in whole percent) and
which has a lower perplexity: it never buys quality with size. The first version of a name takes it. A version of sparse
inputs leaves the model as large as it was, so it takes neither of the two, but `best-inputs-<pattern>`, such as
`best-inputs-8of16`, by the same comparison.

Perplexities are compared only on the same text, in the same window. Where an alias stands on a version that was
measured otherwise, the newest comparison takes over: the alias moves to the new version, and is defended there. The
tags `dataset_hash`, `window` and `ppl` of a version say what it was compared on, and never change.
"""

import math
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.handles import Checkpoint, Context, EvaluationRow
from tasks.prune.weight.pattern import parse_pattern
from tasks.record import home
from tasks.record.names import pattern_alias, plain, registered_name
from tasks.record.registry.loader import ENTRIES, copy_loader
from tasks.record.registry.tracking import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

SHORT = 2  # percent that rounding, of few inputs or of a threshold, may leave of what a pattern asks for
COMPARABLE = ("dataset_hash", "window")  # of versions of one name, which fixes the dense model


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version, and the aliases that it holds."""

    name: str
    version: str
    aliases: tuple[str, ...]


def publish(
    client: "MlflowClient",
    context: Context,
    stored: Checkpoint,
    evaluation: EvaluationRow,
    run_id: str,
    removed: float = 0.0,
) -> Version:
    """Register a stored checkpoint as a version and let it take the aliases it deserves.

    `client` and MLflow's `run_id` are those of tracking.log_run. `removed`: the share of the dense model's parameters
    that was cut out. A checkpoint is registered once for each text and window it was measured on: whoever publishes it
    again gets the version that is there, with the tags that it had. Raises home.Damaged if its folder no longer has
    the content of its hash.
    """
    home.verify(stored)
    name = registered_name(context.model, context.model_hash)
    facts = _facts(context, stored, evaluation) | {"percent_removed": str(round(100 * removed))}
    same = (f"tags.{tag} = '{facts[tag]}'" for tag in ("checkpoint", *COMPARABLE))
    found = client.search_model_versions(" and ".join((f"name = '{name}'", *same)))
    version = found[0] if found else _register(client, name, stored, facts, run_id)
    _take_aliases(client, version)
    aliases = client.get_model_version(name, version.version).aliases
    return Version(name=name, version=str(version.version), aliases=tuple(sorted(aliases)))


def load_registered(name: str, version: str, device: str = "cpu") -> tuple[Any, Any]:
    """The model and tokenizer of a registered version, given by its number or by an alias such as "best-2of4".

    Raises ValueError if there is no such version, home.Damaged if its files are not those that were registered.
    """
    from torch import nn

    from tasks.model.load import fingerprint, load_model, load_tokenizer
    from tasks.prune.activation.folder import load_sparse
    from tasks.prune.activation.methods import METHODS
    from tasks.prune.pack import load_packed

    with tracking() as client:
        found = find(client, name, version)
        checkpoint, kind = found.tags["checkpoint"], found.tags.get("kind", "packed")
        folder = Path(client.get_model_version_download_uri(name, found.version), "artifacts", checkpoint)
    home.verify(Checkpoint(hash=checkpoint, folder=str(folder), kind=kind))
    if kind == "packed":
        return load_packed(folder, device), load_tokenizer(folder)
    if kind == "sparse_inputs":
        dense = Path(found.tags["dense"])
        model = load_model(dense)
        load_sparse(model, fingerprint(dense), folder, METHODS)
        return nn.Module.to(model, device), load_tokenizer(dense)
    return load_model(folder, device, run_code=kind == "per_layer"), load_tokenizer(folder)


def number_of(name: str, version: str) -> str:
    """The number of a version that is given by an alias, such as "best", or by its number. ValueError if none is."""
    with tracking() as client:
        return str(find(client, name, version).version)


def find(client: "MlflowClient", name: str, version: str) -> "ModelVersion":
    """A registered version by its number or an alias; ValueError that lists what is registered."""
    from mlflow.exceptions import MlflowException

    try:
        if version.isdecimal():
            return client.get_model_version(name, version)
        return client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        models = {model.name: model for model in client.search_registered_models()}
        if name not in models:
            names = ", ".join(sorted(models)) or "none yet"
            raise ValueError(f"name: {name!r} is not registered; the registered models are {names}") from error
        known = ", ".join(sorted(models[name].aliases))
        raise ValueError(
            f"version: {name} has no {version!r}; give a number, or one of its aliases: {known}"
        ) from error


def _facts(context: Context, stored: Checkpoint, evaluation: EvaluationRow) -> dict[str, str]:
    """The tags of a version: where it comes from, and what it was compared on."""
    upon = {} if stored.dense is None else {"dense": str(home.locate(stored.dense))}
    return upon | {
        "method": context.method,
        "pattern": context.pattern,
        "seed": str(context.seed),
        "run": context.run,
        "checkpoint": stored.hash,
        "kind": stored.kind,
        "model_hash": context.model_hash,
        "dataset_hash": context.dataset_hash,
        "window": str(evaluation.window),
        "ppl": repr(evaluation.ppl),
        "percent_zero": str(round(100 * evaluation.sparsity)),
        "factored": str(int(_has_factors(home.locate(stored.folder)))),
    }


def _register(
    client: "MlflowClient", name: str, stored: Checkpoint, facts: dict[str, str], run_id: str
) -> "ModelVersion":
    """Copy the folder into MLflow's files and make a version of it; its tags are there from its first moment."""
    from mlflow import pyfunc
    from mlflow.models import Model

    run = client.get_run(run_id)
    model = client.create_logged_model(
        run.info.experiment_id,
        name=plain(f"{facts['method']}-{facts['pattern']}").replace(".", "-"),
        source_run_id=run_id,
        params=run.data.params,
        tags=facts,
    )
    carries_loader = stored.kind in ENTRIES
    with tempfile.TemporaryDirectory() as aside:
        logged = Model.log(  # pyfunc.log_model would have to start the run, and then to end it
            artifact_path=None,
            flavor=pyfunc,
            model_id=model.model_id,
            run_id=run_id,
            python_model=str(Path(__file__).with_name("registered.py")),
            artifacts={stored.kind if carries_loader else "folder": str(home.locate(stored.folder))},
            code_paths=[str(copy_loader(Path(aside), stored.kind))] if carries_loader else None,
            model_config={"dense": facts["dense"]} if "dense" in facts else None,
            pip_requirements=[f"{package}=={version}" for package, version in _requirements().items()],
        )
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return client.create_model_version(name, logged.model_uri, run_id, tags=facts, model_id=logged.model_id)


def _take_aliases(client: "MlflowClient", version: "ModelVersion") -> None:
    """Move the aliases to this version where the rules at the top of this file say so."""
    if not math.isfinite(float(version.tags["ppl"])):
        return
    aliases = client.get_registered_model(version.name).aliases
    own = pattern_alias(version.tags["pattern"])
    for alias in (own.replace("best-", "best-inputs-", 1),) if _is_of_inputs(version) else (own, "best"):
        holder = client.get_model_version(version.name, aliases[alias]) if alias in aliases else None
        if (
            holder is None
            or not _is_comparable(version, holder)
            or (
                _is_better(version, holder) and _is_as_sparse(version, holder)
                if alias == "best"
                else _leads(version, holder)
            )
        ):
            client.set_registered_model_alias(version.name, alias, version.version)


def _is_comparable(version: "ModelVersion", holder: "ModelVersion") -> bool:
    return all(version.tags[name] == holder.tags[name] for name in COMPARABLE)


def _is_better(version: "ModelVersion", holder: "ModelVersion") -> bool:
    return float(version.tags["ppl"]) < float(holder.tags["ppl"])


def _leads(version: "ModelVersion", holder: "ModelVersion") -> bool:
    """Of one pattern: what drops as much as it asks for before what does not, of those more, then by perplexity.

    Cut models, which come as near as their units allow, and weights with factors, in whose sum nothing is zero, are of
    their pattern as they are.
    """
    if any(
        each.tags.get("factored") == "1" or int(each.tags.get("percent_removed", "0")) for each in (version, holder)
    ):
        return _is_better(version, holder)
    return _standing(version) > _standing(holder)


def _standing(version: "ModelVersion") -> tuple[int, float]:
    """What is gone, in percent, of what the pattern asks for and to within `SHORT`; then the lower perplexity."""
    asked, gone = round(100 * parse_pattern(version.tags["pattern"]).sparsity), _percent_gone(version)
    return (asked if gone >= asked - SHORT else gone), -float(version.tags["ppl"])


def _has_factors(folder: Path) -> bool:
    """Whether factors stand beside or in place of weights of this packed checkpoint: its index says their rank."""
    index = folder / "packing.json"
    return index.is_file() and b'"rank":' in index.read_bytes()


def _is_of_inputs(version: "ModelVersion") -> bool:
    return version.tags.get("kind") == "sparse_inputs"


def _is_as_sparse(version: "ModelVersion", holder: "ModelVersion") -> bool:
    return _percent_gone(version) >= _percent_gone(holder)


def _percent_gone(version: "ModelVersion") -> int:
    return int(version.tags["percent_zero"]) + int(version.tags.get("percent_removed", "0"))


def _requirements() -> dict[str, str]:
    """The versions that made the model, without the build (`+cpu`), which no index offers."""
    packages = ("torch", "transformers", "safetensors")
    return {package: metadata.version(package).partition("+")[0] for package in packages}

"""What MLflow's pages show of a run beside its scores, all of it from stored rows: curves, texts, the command.

Curves have blocks, tokens or steps of a training for steps, so that MLflow draws those of several runs in one chart.
The texts are MLflow's data sets, named by the hash of their documents.
"""

import json
import math
from typing import TYPE_CHECKING

from tasks.record.metrics import query, query_named

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

LONGEST_DIGEST = 36  # characters that MLflow keeps of a hash


def describe_run(client: "MlflowClient", run_id: str, run: str) -> None:
    """Add to MLflow's run `run_id` the texts of the finished run `run`, and the command that repeats it."""
    client.log_inputs(run_id, texts_of(run))
    for row in query("SELECT command FROM runs WHERE run = ?", [run]):
        client.set_tag(run_id, "mlflow.note.content", f"```sh\n{row['command']}\n```")


def curves_of_rows(run: str) -> list[tuple[str, float, int]]:
    """The name, the value and the step of every point, those left out that MLflow cannot plot."""
    points = [(row["name"], row["value"], int(row["step"])) for row in query_named("curves", run=run)]
    return [point for point in points if point[1] is not None and math.isfinite(point[1])]


def texts_of(run: str) -> list["DatasetInput"]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rows = query("SELECT role, source, dataset_hash, documents, tokens, windows FROM datasets WHERE run = ?", [run])
    return [
        DatasetInput(
            Dataset(
                name=row["source"],
                digest=row["dataset_hash"][:LONGEST_DIGEST],
                source_type="text",
                source=json.dumps({"source": row["source"], "sha256": row["dataset_hash"]}),
                profile=json.dumps({name: row[name] for name in ("documents", "tokens", "windows")}),
            ),
            tags=[InputTag("mlflow.data.context", row["role"])],
        )
        for row in rows
    ]

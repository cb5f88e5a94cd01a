"""Replies to benchmarks as a Parquet file: one row per question as it was asked."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluate.answers import Sample

FILE = "samples.parquet"
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("example", pa.int64()),
        ("contexts", pa.list_(pa.string())),
        ("continuations", pa.list_(pa.string())),
        ("replies", pa.list_(pa.string())),
        ("target", pa.string()),
        ("scores", pa.string()),
    ]
)


def write_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write FILE into `folder`; the same samples give the same bytes."""
    assert SCHEMA.names == [field.name for field in fields(Sample)]
    pq.write_table(pa.Table.from_pylist([asdict(sample) for sample in samples], schema=SCHEMA), folder / FILE)

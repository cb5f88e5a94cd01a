"""Several runs in one artifacts folder, and the rows that each has left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from tasks.record.metrics import query


class Recorded(Protocol):
    """The outcome of any flow."""

    @property
    def run(self) -> str: ...


@contextmanager
def sharing(server: str, folder: Path) -> Iterator[None]:
    """Runs leave what they leave in `folder`, so that what they share is computed once."""
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: f"{server}/api", PREFECT_LOCAL_STORAGE_PATH: folder / "results"}),
    ):
        patch.setenv("ESPALIER_ARTIFACTS", str(folder))
        yield


def rows_of(table: str, outcome: Recorded) -> list[dict]:
    return query(f"select * from {table} where run = ?", [outcome.run])


def stages_of(outcome: Recorded) -> dict[str, bool]:
    """name -> whether it came from the cache"""
    return {row["stage"]: row["cached"] for row in rows_of("stages", outcome)}

"""One thread a process, so that the suite behaves alike on busy machines; and where the real data are."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and texts beside the repository (`../shared/data`); the test is skipped without it."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("../shared/data is absent")
    return data

"""A registered model of sparse inputs: what was saved, loaded upon the dense model, in an alias of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.handles import Checkpoint
from tasks.model.load import fingerprint, load_model
from tasks.prune import MITIGATIONS, SELECTIONS
from tasks.prune.activation.apply import sparse_inputs
from tasks.prune.activation.folder import save_sparse
from tasks.prune.activation.threshold import Threshold
from tasks.record import home
from tasks.record.registry import tracking, versions
from tasks.record.registry.loader import copy_loader
from tests.cases import batches
from tests.prune.activation.test_sparse_inputs import recipe
from tests.record.publishing import NAME, publish, stub

pytestmark = pytest.mark.usefixtures("database")

[IDS] = batches((2, 24), seed=3)
FRESH_PROCESS = """
import sys, torch, mlflow
from safetensors.torch import save_file
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [place for place in sys.path if place and place != sys.argv[3]]
mlflow.set_tracking_uri(sys.argv[1])
elsewhere = {"dense": sys.argv[4]} if len(sys.argv) > 4 else None
loaded = mlflow.pyfunc.load_model("models:/espalier-stories-aaaaaaaa@best-inputs-50pct", model_config=elsewhere)
assert "mlruns" in sys.modules["tasks"].__file__, sys.modules["tasks"].__file__
with torch.no_grad():
    logits = loaded.unwrap_python_model().model(torch.arange(12)[None]).logits
save_file({"logits": logits}, sys.argv[2])
[continuation] = loaded.predict(["w1 w2 w3"])
assert continuation.startswith("w"), continuation
"""


@pytest.fixture
def dense(pruned, tmp_path):
    return Path(shutil.copytree(pruned[1], tmp_path / "dense"))


def store(dense: Path, seed: int = 1) -> tuple[Checkpoint, torch.Tensor]:
    """A stored model of sparse inputs, and its logits of IDS."""
    model, how = load_model(dense), recipe("50%", selection=Threshold())
    with sparse_inputs(model, how, batches(seed=seed)) as installed, home.store("activations") as draft:
        save_sparse(installed, how, fingerprint(dense), draft.path, SELECTIONS | MITIGATIONS)
        with torch.no_grad():
            logits = model(IDS).logits
    stored = draft.stored
    return Checkpoint(hash=stored.hash, folder=stored.folder, kind="sparse_inputs", dense=str(dense)), logits


def test_it_is_loaded_upon_the_dense_model_and_has_an_alias_of_its_own(dense):
    stored, logits = store(dense)
    assert publish("r1", stored, pattern="50%").aliases == ("best-inputs-50pct",)
    model, tokenizer = versions.load_registered(NAME, "best-inputs-50pct")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, logits)
    assert tokenizer("w5 w7")["input_ids"] == [5, 7]
    assert publish("r2", stub("zeros"), ppl=90.0, pattern="50%").aliases == ("best", "best-50pct")
    assert publish("r3", store(dense, seed=2)[0], ppl=19.0, pattern="50%").aliases == ("best-inputs-50pct",)
    with tracking.tracking() as client:
        tags = client.get_model_version(NAME, "1").tags
    assert (tags["kind"], tags["dense"], tags["run"]) == ("sparse_inputs", str(dense), "r1")


@pytest.mark.parametrize("moved", [False, True])
def test_a_process_with_mlflow_alone_loads_it_wherever_the_dense_model_is(dense, moved, tmp_path):
    stored, _ = store(dense)
    publish("r1", stored, pattern="50%")
    model, _ = versions.load_registered(NAME, "1")
    places = [str(dense.rename(tmp_path / "moved"))] if moved else []
    found, project = tmp_path / "logits.safetensors", str(Path(versions.__file__).parents[3])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", FRESH_PROCESS, tracking.tracking_uri(), str(found), project, *places]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    with torch.no_grad():
        torch.testing.assert_close(load_file(found)["logits"], model(torch.arange(12)[None]).logits)


def test_upon_another_model_it_is_refused(dense):
    stored, _ = store(dense)
    publish("r1", stored, pattern="50%")
    other = load_model(dense)
    with torch.no_grad():
        other.model.norm.weight.add_(1)
    other.save_pretrained(dense)
    with pytest.raises(ValueError, match=r"^activation: .* is of model"):
        versions.load_registered(NAME, "1")


def test_what_it_carries_is_whole_and_small(tmp_path):
    package = copy_loader(tmp_path, "sparse_inputs")
    copied = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert {"prune/activation/folder.py", "prune/activation/var.py", "model/load.py", "prune/__init__.py"} <= copied
    assert (package / "prune" / "activation" / "compiled_product.cpp").is_file()
    others = ("record", "evaluate", "data", "recover", "prune/structure")
    assert not {name for name in copied if name.startswith(others)}

"""MLflow: what is registered is what was evaluated, once; aliases move as the docstring of the registry says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tasks.record import home
from tasks.record.names import registered_name
from tasks.record.registry import tracking, versions
from tasks.record.registry.loader import copy_loader
from tests.cases import batches
from tests.record.plausible import CONTEXT
from tests.record.publishing import NAME, pack, publish, stub

pytestmark = pytest.mark.usefixtures("database")

FRESH_PROCESS = """
import sys, mlflow
from safetensors.torch import save_file
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [place for place in sys.path if place and place != sys.argv[3]]
mlflow.set_tracking_uri(sys.argv[1])
loaded = mlflow.pyfunc.load_model("models:/espalier-stories-aaaaaaaa@best")
assert "mlruns" in sys.modules["tasks"].__file__, sys.modules["tasks"].__file__
weights = loaded.unwrap_python_model().model.state_dict()
save_file({name: weight.clone() for name, weight in weights.items()}, sys.argv[2])
[continuation] = loaded.predict(["w1 w2 w3"])
assert continuation.startswith("w"), continuation
"""


def test_the_registry_gives_back_the_weights_to_the_bit(pruned, artifacts, tmp_path):
    model, folder = pruned
    packed = pack(folder)
    version = publish("r1", packed)
    assert version == versions.Version(name=NAME, version="1", aliases=("best", "best-2of4"))

    loaded, tokenizer = versions.load_registered(NAME, "best")
    assert tokenizer("w5 w7")["input_ids"] == [5, 7]
    [ids] = batches((2, 24))
    assert torch.equal(loaded(ids).logits, model(ids).logits)

    found = tmp_path / "weights.safetensors"
    project = str(Path(versions.__file__).parents[3])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", FRESH_PROCESS, tracking.tracking_uri(), str(found), project]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    weights = load_file(found)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())

    registered = next((artifacts / "mlruns").rglob("packing.json"))
    registered.write_text(registered.read_text() + " ")
    with pytest.raises(home.Altered, match=r"packing\.json was altered"):
        versions.load_registered(NAME, "1")


def test_a_checkpoint_is_registered_once():
    first = publish("r1", stub("same"))
    assert publish("r2", stub("same")) == first
    assert publish("r3", stub("other"), ppl=21.0).version == "2"
    with pytest.raises(ValueError, match="has no 'bets'; give a number, or one of its aliases: best, best-2of4"):
        versions.load_registered(NAME, "bets")
    for unknown in ("espalier-nothing", "it's", '"'):
        with pytest.raises(ValueError, match=f"is not registered; the registered models are {NAME}$"):
            versions.load_registered(unknown, "1")


def test_a_checkpoint_published_again_keeps_the_tags_of_its_comparison():
    first = publish("r1", stub("same"))
    again = publish("r2", stub("same"), ppl=21.0)
    elsewhere = publish("r3", stub("same"), ppl=3.0, dataset_hash="another text")
    assert (again.version, elsewhere.version) == (first.version, "2")
    with tracking.tracking() as client:
        tags = [client.get_model_version(NAME, version).tags for version in "12"]
    assert [(of["run"], of["ppl"], of["dataset_hash"]) for of in tags] == [
        ("r1", "20.0", CONTEXT.dataset_hash),
        ("r3", "3.0", "another text"),
    ]


def test_models_in_folders_of_one_name_do_not_fight():
    assert publish("r1", stub("one")).aliases == ("best", "best-2of4")
    other = publish("r2", stub("two"), ppl=90.0, model_hash="b" * 64)
    assert other == versions.Version(name="espalier-stories-bbbbbbbb", version="1", aliases=("best", "best-2of4"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [('it\'s "so"', "it-s--so"), ("llama-3.2_1B", "llama-3.2_1B"), ("a/b:c@d", "a-b-c-d"), ("…", "model")],
)
def test_a_folder_may_have_any_name(folder, name):
    assert registered_name(folder, CONTEXT.model_hash) == f"espalier-{name}-aaaaaaaa"
    if name == "it-s--so":
        assert publish("r1", stub("odd"), model=folder).aliases == ("best", "best-2of4")


def test_the_loader_is_whole_and_small(tmp_path):
    package = copy_loader(tmp_path, "packed")
    copied = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert {"prune/pack.py", "prune/weight/pattern.py", "prune/__init__.py"} <= copied
    assert not {name for name in copied if name.startswith(("record", "calibrate", "evaluate", "data"))}
    assert (package / "prune" / "__init__.py").read_text() == ""

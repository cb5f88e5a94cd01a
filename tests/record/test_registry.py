"""MLflow: what is registered is what was evaluated, once; aliases move as the docstring of the registry says."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.handles import Checkpoint
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.pattern import parse_pattern
from tasks.record import home, metrics, registry, tracking
from tasks.record.loader import copy_loader
from tasks.record.names import pattern_alias, registered_name
from tests.cases import batches, llama
from tests.record.plausible import CONTEXT, evaluation, finish, speed

NAME = "espalier-stories-aaaaaaaa"
FRESH_PROCESS = """
import sys, torch, mlflow
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [place for place in sys.path if place and place != sys.argv[3]]
mlflow.set_tracking_uri(sys.argv[1])
loaded = mlflow.pyfunc.load_model("models:/espalier-stories-aaaaaaaa@best")
assert "mlruns" in sys.modules["tasks"].__file__, sys.modules["tasks"].__file__
torch.save(loaded.unwrap_python_model().model.state_dict(), sys.argv[2])
[continuation] = loaded.predict(["w1 w2 w3"])
assert continuation.startswith("w"), continuation
"""


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables, which take seconds to create."""
    place = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_ARTIFACTS", str(place))
        with tracking.tracking() as client:
            client.search_experiments()
    return place / "mlflow.db"


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch, empty_database):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    (tmp_path / "artifacts").mkdir()
    shutil.copy(empty_database, tmp_path / "artifacts")
    return tmp_path / "artifacts"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A tiny 2:4 model and its tokenizer in a folder of the transformers layout."""
    folder = tmp_path_factory.mktemp("pruned")
    model = llama()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("proj.weight"):
                weight *= parse_pattern("2:4").keep(weight.abs())
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(97)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return model, folder


def pack(folder: Path) -> Checkpoint:
    with home.store("packed") as draft:
        pack_checkpoint(folder, draft.path, parse_pattern("2:4"))
    return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed")


def stub(text: str) -> Checkpoint:
    """A folder that is enough to register, for what needs no model."""
    with home.store("packed") as draft:
        (draft.path / "packing.json").write_text(text)
    return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind="packed")


def publish(
    run: str, packed: Checkpoint, ppl: float = 20.0, sparsity: float = 0.5, removed: float = 0.0, **context
) -> registry.Version:
    of_run = dataclasses.replace(CONTEXT, run=run, **context)
    row = evaluation(ppl=ppl, sparsity=sparsity, checkpoint=packed.hash)
    with tracking.log_run(of_run, parameters={"samples": 128}, evaluations=[evaluation("dense"), row]) as logged:
        client, run_id = logged
        return registry.publish(client, of_run, packed, row, run_id, removed)


def statuses() -> dict[str, str]:
    """The runs in MLflow: name -> how far it says each is."""
    with tracking.tracking() as client:
        experiment = client.get_experiment_by_name("espalier")
        return {run.data.tags["run"]: run.info.status for run in client.search_runs([experiment.experiment_id])}


def test_the_registry_gives_back_the_weights_to_the_bit(pruned, artifacts, tmp_path):
    model, folder = pruned
    packed = pack(folder)
    version = publish("r1", packed)
    assert version == registry.Version(name=NAME, version="1", aliases=("best", "best-2of4"))

    loaded, tokenizer = registry.load_registered(NAME, "best")
    assert tokenizer("w5 w7")["input_ids"] == [5, 7]
    [ids] = batches((2, 24))
    assert torch.equal(loaded(ids).logits, model(ids).logits)

    found = tmp_path / "weights.pt"
    project = str(Path(registry.__file__).parents[2])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", FRESH_PROCESS, tracking.tracking_uri(), str(found), project]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    weights = torch.load(found, weights_only=True)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())

    registered = next((artifacts / "mlruns").rglob("packing.json"))
    registered.write_text(registered.read_text() + " ")
    with pytest.raises(home.Altered, match=r"packing\.json was altered"):
        registry.load_registered(NAME, "1")


def test_a_checkpoint_is_registered_once():
    first = publish("r1", stub("same"))
    assert publish("r2", stub("same")) == first
    assert publish("r3", stub("other"), ppl=21.0).version == "2"
    with pytest.raises(ValueError, match="has no 'bets'; give a number, or one of its aliases: best, best-2of4"):
        registry.load_registered(NAME, "bets")
    for unknown in ("espalier-nothing", "it's", '"'):
        with pytest.raises(ValueError, match=f"is not registered; the registered models are {NAME}$"):
            registry.load_registered(unknown, "1")


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
    assert other == registry.Version(name="espalier-stories-bbbbbbbb", version="1", aliases=("best", "best-2of4"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [('it\'s "so"', "it-s--so"), ("llama-3.2_1B", "llama-3.2_1B"), ("a/b:c@d", "a-b-c-d"), ("…", "model")],
)
def test_a_folder_may_have_any_name(folder, name):
    assert registered_name(folder, CONTEXT.model_hash) == f"espalier-{name}-aaaaaaaa"
    if name == "it-s--so":
        assert publish("r1", stub("odd"), model=folder).aliases == ("best", "best-2of4")


def test_the_alias_of_a_pattern():
    aliases = ("best-2of4", "best-50pct", "best-50pct", "best-62-5pct", "best-minus-30pct", "best-minus-30pct")
    assert tuple(map(pattern_alias, ("2:4", "50%", "50%@matrix", "62.5%", "-30%", "-30%@channels"))) == aliases


def test_aliases_move_only_to_what_is_comparable_and_better():
    def aliases(run: str, **facts) -> tuple[str, ...]:
        return publish(run, stub(run), **facts).aliases

    assert aliases("r1", ppl=20.0) == ("best", "best-2of4")
    assert aliases("r2", ppl=21.0) == ()
    assert aliases("r5", ppl=float("nan"), pattern="1:4", sparsity=0.75) == ()
    assert aliases("r6", ppl=12.0, pattern="30%", sparsity=0.3) == ("best-30pct",)  # lower, but at more weights
    assert aliases("r7", ppl=18.0, pattern="50%") == ("best", "best-50pct")
    assert aliases("r8", ppl=17.0) == ("best", "best-2of4")
    assert aliases("r9", ppl=17.5, pattern="50%@matrix") == ("best-50pct",)
    assert aliases("r10", ppl=16.0, pattern="60%", sparsity=0.6) == ("best", "best-60pct")


def test_a_smaller_cut_of_lower_perplexity_does_not_become_the_best():
    def aliases(run: str, removed: float, ppl: float) -> tuple[str, ...]:
        pattern = f"-{100 * removed:g}%"
        return publish(run, stub(run), ppl=ppl, sparsity=0.0, removed=removed, pattern=pattern).aliases

    assert aliases("r1", 0.3, 20.0) == ("best", "best-minus-30pct")
    assert aliases("r2", 0.1, 12.0) == ("best-minus-10pct",)
    assert aliases("r3", 0.4, 19.0) == ("best", "best-minus-40pct")


def test_on_another_text_the_newest_comparison_takes_over():
    assert publish("r1", stub("one"), ppl=20.0).aliases == ("best", "best-2of4")
    assert publish("r2", stub("two"), ppl=float("inf"), dataset_hash="another text").aliases == ()
    assert publish("r3", stub("three"), ppl=90.0, dataset_hash="another text").aliases == ("best", "best-2of4")
    assert publish("r4", stub("four"), ppl=91.0, dataset_hash="another text").aliases == ()


class Killed(BaseException):
    """Stands for what no `except Exception` catches."""


@pytest.mark.parametrize(("moment", "status"), [("log_batch", "FAILED"), ("set_terminated", "FINISHED")])
def test_a_writer_that_ends_early_leaves_no_run_open(moment, status, monkeypatch):
    def end(*_, **__):
        raise Killed

    def log(run: str) -> None:
        of_run = dataclasses.replace(CONTEXT, run=run)
        with tracking.log_run(of_run, parameters={}, evaluations=[evaluation("dense"), evaluation()]):
            finish(of_run)

    with monkeypatch.context() as patch:
        patch.setattr(f"mlflow.MlflowClient.{moment}", end)
        with pytest.raises(Killed):
            log("r1")
    log("r2")
    assert statuses() == {"r1": status, "r2": "FINISHED"}
    log("r1")
    assert statuses() == {"r1": "FINISHED", "r2": "FINISHED"}


PUBLISHED_THEN_KILLED = """
import os, signal, sys
from tests.record.plausible import CONTEXT, evaluation, finish
from tasks.handles import Checkpoint
from tasks.record import registry, tracking
with tracking.log_run(CONTEXT, parameters={}, evaluations=[evaluation("dense"), evaluation()], sweep="s1") as logged:
    client, run_id = logged
    registry.publish(client, CONTEXT, Checkpoint(hash=sys.argv[1], folder=sys.argv[2]), evaluation(), run_id)
    if sys.argv[3] == "recorded":
        finish(sweep="s1")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("until", "rows", "status"), [("published", 0, "KILLED"), ("recorded", 1, "FINISHED")])
def test_a_killed_run_is_finished_only_where_its_row_is_written(until, rows, status):
    packed = stub("killed")
    places = [str(Path(__file__).parent), str(Path(registry.__file__).parents[2])]
    command = [sys.executable, "-c", PUBLISHED_THEN_KILLED, packed.hash, packed.folder, until]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert statuses() == {"r1": "RUNNING", "s1": "SCHEDULED"}
    assert len(metrics.query("SELECT run FROM runs")) == rows

    again = publish("r2", packed)
    assert again.version == "1"  # what was registered is whole, and is not registered again
    assert statuses() == {"r1": status, "s1": "SCHEDULED", "r2": "FINISHED"}


def test_what_a_run_raises_after_it_was_logged_fails_it():
    with pytest.raises(home.Damaged):
        publish("r1", Checkpoint(hash="0" * 64, folder="store/packed/none", kind="packed"))
    assert statuses() == {"r1": "FAILED"}


def test_a_run_with_a_quote_is_refused():
    with pytest.raises(ValueError, match=r"run: .* must be letters, digits"):
        tracking.attach_report("it's", Path("index.html"))


def test_a_run_is_logged_once_under_its_sweep_with_what_the_interface_compares(artifacts):
    speeds = [speed("dense", "decode", 1.0, 1.0, 1.0, "reference"), speed("pruned", "decode", 1.1, 1.0, 1.2, "no gain")]
    rows = [evaluation("dense"), evaluation(ppl=float("inf"))]
    for _ in range(2):
        facts = {"parameters": {"samples": 64}, "evaluations": rows, "speeds": speeds}
        with tracking.log_run(CONTEXT, **facts, sweep="s1") as (client, logged):
            assert client.get_run(logged).info.status == "RUNNING"
        assert statuses() == {"r1": "FINISHED", "s1": "SCHEDULED"}
    page = artifacts / "index.html"
    page.write_text("a page")
    tracking.attach_report("s1", page)
    with tracking.tracking() as client:
        experiment = client.get_experiment_by_name("espalier")
        runs = {run.data.tags["run"]: run for run in client.search_runs([experiment.experiment_id])}
        assert runs.keys() == {"r1", "s1"}
        run = runs["r1"]
        assert run.info.run_id == logged
        assert run.data.tags["mlflow.parentRunId"] == runs["s1"].info.run_id
        assert {of.info.status for of in runs.values()} == {"FINISHED"}
        assert [file.path for file in client.list_artifacts(runs["s1"].info.run_id, "report")] == ["report/index.html"]
    wanted = {"method": "wanda", "pattern": "2:4", "seed": "0", "model": "stories", "samples": "64"}
    assert run.data.params == wanted
    assert "ppl" not in run.data.metrics  # it is not finite
    assert run.data.metrics["dense_ppl"] == rows[0].ppl
    assert run.data.metrics["sparsity"] == 0.5
    assert run.data.metrics["decode_speed_ratio_high"] == 1.2


def test_the_loader_is_whole_and_small(tmp_path):
    package = copy_loader(tmp_path, "packed")
    copied = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert {"prune/pack.py", "prune/weight/pattern.py", "prune/__init__.py"} <= copied
    assert not {name for name in copied if name.startswith(("record", "calibrate", "evaluate", "data"))}
    assert (package / "prune" / "__init__.py").read_text() == ""

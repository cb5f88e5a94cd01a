"""The stages of evaluation, of models that are loaded and of those that are mapped because memory is short."""

import pytest
import torch
from safetensors.torch import save_file

from tasks.evaluate import evaluation, task
from tasks.evaluate.task import check_speed, evaluate, fits, opened, time_speed
from tasks.handles import Checkpoint, Tokens
from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.folder import fingerprint, weight_bytes
from tasks.model.load import load_model
from tasks.model.mapped import Mapped
from tasks.prune.pack import pack_checkpoint
from tasks.prune.weight.magnitude import Magnitude
from tasks.prune.weight.pattern import NM
from tasks.record import home
from tests.cases import FAMILIES, VOCABULARY, llama

PLENTY, LITTLE = 2**40, 0
WINDOW, WINDOWS = 24, 7


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    """An artifacts folder of this test's own, and batches of so few windows that there are several."""
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", 3 * WINDOW)
    return tmp_path / "artifacts"


@pytest.fixture
def tokens():
    ids = torch.randint(VOCABULARY, (WINDOW * WINDOWS + 5,), generator=torch.Generator().manual_seed(1))
    with home.store("tokens") as draft:
        save_file({"ids": ids}, draft.path / "tokens.safetensors")
    counts = {"documents": 1, "text_bytes": 4 * len(ids), "tokens": len(ids), "windows": WINDOWS, "window": WINDOW}
    of = {"source": "random", "dataset_hash": "", "scored_bytes": 4 * WINDOWS * (WINDOW - 1)}
    return Tokens(hash=draft.stored.hash, folder=draft.stored.folder, **of, **counts)


def stored(model, folder, kind):
    """`model` pruned to 2:4, as a user's folder or as a packed checkpoint of the store."""
    for linear in linears_of(find_blocks(model)[1]).values():
        linear.weight.data = Magnitude().prune(linear.weight.data, None, NM(2, 4))
    model.save_pretrained(folder)
    if kind == "transformers":
        return Checkpoint(hash=fingerprint(folder), folder=str(folder))
    with home.store("packed") as draft:
        pack_checkpoint(folder, draft.path, NM(2, 4))
    return Checkpoint(hash=draft.stored.hash, folder=draft.stored.folder, kind=kind)


def free(monkeypatch, count):
    monkeypatch.setattr(task, "free_bytes", lambda: count)


@pytest.mark.parametrize("kind", ["transformers", "packed"])
@pytest.mark.parametrize(
    "make",
    [
        *FAMILIES.values(),
        lambda: llama().bfloat16(),
        lambda: llama(tie_word_embeddings=True),
        lambda: llama(hidden_size=128, intermediate_size=320),
    ],
)
def test_a_mapped_model_has_the_same_row_to_the_last_bit(make, kind, tokens, tmp_path, monkeypatch):
    checkpoint = stored(make(), tmp_path / "model", kind)
    rows = []
    for count in (PLENTY, LITTLE):
        free(monkeypatch, count)
        rows.append(evaluate.fn(checkpoint=checkpoint, tokens=tokens, subject="pruned", device="cpu"))
    assert rows[0] == rows[1]
    assert rows[0].sparsity == 0.5
    assert rows[0].windows == WINDOWS


@pytest.mark.parametrize("kind", ["transformers", "packed"])
def test_it_is_mapped_where_it_does_not_fit_and_leaves_nothing_behind(kind, artifacts, tmp_path, monkeypatch):
    checkpoint = stored(llama(), tmp_path / "model", kind)
    folder = home.locate(checkpoint.folder)
    before = {path for path in artifacts.rglob("*") if path.is_file()}
    free(monkeypatch, LITTLE)
    with opened(folder, "cpu") as model:
        views = [parameter for parameter in model.parameters() if isinstance(parameter, Mapped) and parameter.is_view]
        assert len(views) == len(list(model.parameters()))
        shards = {view.file for view in views}
        assert all(shard.is_relative_to(artifacts if kind == "packed" else folder) for shard in shards)
    assert {path for path in artifacts.rglob("*") if path.is_file()} == before
    free(monkeypatch, PLENTY)
    with opened(folder, "cpu") as model:
        assert not any(isinstance(parameter, Mapped) for parameter in model.parameters())


def test_what_was_unpacked_is_removed_after_a_failure_too(artifacts, tmp_path, monkeypatch):
    folder = home.locate(stored(llama(), tmp_path / "model", "packed").folder)
    before = {path for path in artifacts.rglob("*") if path.is_file()}
    free(monkeypatch, LITTLE)
    with pytest.raises(ZeroDivisionError), opened(folder, "cpu"):
        raise ZeroDivisionError
    shard = next(folder.glob("packed-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be read from"), opened(folder, "cpu"):
        pass
    assert {path for path in artifacts.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", ["transformers", "packed"])
def test_a_model_fits_up_to_half_of_what_is_free(kind, tmp_path, monkeypatch):
    folder = home.locate(stored(llama(), tmp_path / "model", kind).folder)
    weights = sum(parameter.nbytes for parameter in load_model(tmp_path / "model").parameters())
    size = weights if kind == "packed" else weight_bytes(folder)  # a file has a header too
    assert weights <= size < 1.1 * weights
    for count, fitting in ((2 * size, True), (2 * size - 1, False)):
        free(monkeypatch, count)
        assert fits(folder, "cpu") is fitting
        assert fits(folder, "cuda:0")


def test_speed_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    dense = stored(llama(), tmp_path / "dense", "transformers")
    pruned = stored(llama(), tmp_path / "pruned", "packed")
    monkeypatch.setattr(task, "_load", None)
    free(monkeypatch, LITTLE)
    with pytest.raises(ValueError, match=r"speed: .* 0\.00 GB are free; give --no-speed") as refused:
        time_speed.fn(dense=dense, pruned=pruned, device="cpu", machine="")
    assert "\n" not in str(refused.value)
    free(monkeypatch, PLENTY)
    check_speed(tmp_path / "dense", "cpu")

"""An artifacts folder of each test's own, a sweep to report on, and what the tests of the registry start from."""

import dataclasses
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.prune.weight.pattern import parse_pattern
from tasks.record.registry import tracking
from tests.cases import llama
from tests.record.plausible import CONTEXT, evaluation, record_run

POINTS = {  # run -> method, pattern, sparsity, perplexity
    "r1": ("wanda", "50%", 0.5, 29.25),
    "r2": ("sparsegpt", "50%@matrix", 0.5, 19.45),
    "r3": ("wanda", "2:4", 0.5, 112.2),
    "r4": ("wanda", "70%", 0.7, float("inf")),
}


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture
def swept(artifacts):
    """The sweep s1 of the runs in POINTS, recorded."""
    for run, (method, pattern, sparsity, ppl) in POINTS.items():
        context = dataclasses.replace(CONTEXT, run=run, method=method, pattern=pattern)
        record_run(context, sweep="s1", pruned=evaluation(sparsity=sparsity, ppl=ppl))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's tables, which take seconds to create."""
    place = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_ARTIFACTS", str(place))
        with tracking.tracking() as client:
            client.search_experiments()
    return place / "mlflow.db"


@pytest.fixture
def database(artifacts, empty_database):
    """MLflow's tables in the artifacts folder, with nothing in them."""
    artifacts.mkdir()
    shutil.copy(empty_database, artifacts)


@pytest.fixture(scope="session")
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

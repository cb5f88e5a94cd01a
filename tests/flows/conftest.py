"""One real Prefect server for the tests of the flows, and a text and a model that make a run short."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH, temporary_settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from flows.environment import use_project_settings
from flows.server import prefect_server

WORDS = [
    "the",
    "tree",
    "grows",
    "along",
    "a",
    "frame",
    "and",
    "every",
    "branch",
    "that",
    "bears",
    "no",
    "fruit",
    "is",
    "cut",
    "so",
    "that",
    "light",
    "reaches",
    "the",
    "rest",
]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server whose database and results live in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESPALIER_ARTIFACTS", str(tmp_path_factory.mktemp("server")))
        for name in ("PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        use_project_settings()
        with prefect_server() as url:
            yield url


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two blocks with random weights and a tokenizer of whole words."""
    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: index for index, word in enumerate(["<s>", "<unk>", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=32, max_position_embeddings=512, **shape, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short documents; the first half serves calibration, the second evaluation."""
    path = tmp_path_factory.mktemp("text") / "stories.jsonl"
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (40, 30), generator=generator).tolist()
    path.write_text("".join(json.dumps({"text": " ".join(WORDS[i] for i in row)}) + "\n" for row in picks))
    return path


@pytest.fixture
def artifacts(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An artifacts folder of this test's own; the results of cached stages live in it as well."""
    folder = tmp_path / "artifacts"
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(folder))
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")  # for commands that run in this process
    with temporary_settings({PREFECT_API_URL: f"{server}/api", PREFECT_LOCAL_STORAGE_PATH: folder / "results"}):
        yield folder

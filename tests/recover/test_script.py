"""`python -m tasks.recover`: a folder in, a folder out; two processes give the losses and the weights of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tasks.model.load import load_model
from tasks.prune.structure.export import export_model
from tasks.prune.structure.width import slice_units
from tasks.recover import __main__ as script
from tasks.recover.__main__ import main
from tests.recover.text import VOCABULARY, pruned_llama, weights_of, zeros_of

ROOT = Path(__file__).parents[2]
WINDOW, TOKENS = 12, 12 * 16 * 5  # five steps


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> Path:
    """A model pruned to 2:4, and a tokenizer that reads numbers."""
    folder = tmp_path_factory.mktemp("pruned")
    pruned_llama().save_pretrained(folder)
    vocabulary = {str(number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("texts")
    for name, step in (("ones", 1), ("threes", 3)):
        counted = " ".join(str(number * step % VOCABULARY) for number in range(60 * WINDOW))
        (folder / f"{name}.txt").write_text(counted, encoding="utf-8")
    return f"{folder}/ones.txt=3+{folder}/threes.txt"


def words(pruned: Path, texts: str, out: Path, *more: str) -> list[str]:
    given = ["--checkpoint", str(pruned), "--text", texts, "--tokens", str(TOKENS), "--out", str(out)]
    return [*given, "--window", str(WINDOW), "--rate", "1e-2", *more]


def result(out: Path) -> dict:
    return json.loads((out / "recovery.json").read_text(encoding="utf-8"))


def launch(config: str, *command: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = ROOT / "tasks" / "recover" / "configs" / config
    options = ["--config_file", str(file), "--num_processes", "2", "--main_process_port", port]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "tasks.recover", *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "how"),
    [
        ("recover_ddp.yaml", ()),
        ("recover_ddp.yaml", ("--rank", "2")),
        ("recover_fsdp.yaml", ()),
        ("recover_fsdp.yaml", ("--at-once", "2", "--recompute")),
    ],
)
def test_two_processes_leave_what_one_does(pruned, texts, tmp_path, config, how, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(words(pruned, texts, tmp_path / "one", *how)) == 0
    done = launch(config, *words(pruned, texts, tmp_path / "two", *how))
    assert done.returncode == 0, done.stderr
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    losses = [step["loss"] for step in one["curve"]]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert [step["loss"] for step in two["curve"]] == pytest.approx(losses, abs=1e-5)
    assert (two["sources"], two["zeros"]) == (one["sources"], one["zeros"])
    assert [row["windows"] for row in one["sources"]] == [60, 20]
    before, alone, both = (
        AutoModelForCausalLM.from_pretrained(folder) for folder in (pruned, tmp_path / "one", tmp_path / "two")
    )
    assert torch.allclose(weights_of(alone), weights_of(both), atol=1e-4)
    assert not torch.equal(weights_of(alone), weights_of(before))
    zeros = zeros_of(before)
    for model in (alone, both):
        assert all(torch.equal(zeros[name], found) for name, found in zeros_of(model).items())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one", "two"]  # no state is left over


def test_stopped_it_goes_on_to_the_same_weights_and_distils(pruned, texts, tmp_path, monkeypatch, capsys):
    how = ("--dense", str(pruned), "--temperature", "3", "--at-once", "4", "--recompute")
    assert main(words(pruned, texts, tmp_path / "whole", *how)) == 0

    def stop(step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "STATE_EVERY", 2)
        patch.setattr(script, "_say", stop)
        with pytest.raises(KeyboardInterrupt):
            main(words(pruned, texts, tmp_path / "parts", *how))
    assert not (tmp_path / "parts").exists()
    capsys.readouterr()
    monkeypatch.setattr(script, "_say", lambda step: sys.stderr.write(f"{step.step} "))
    assert main(words(pruned, texts, tmp_path / "parts", *how)) == 0
    assert capsys.readouterr().err == "4 "  # of five steps, four were in the state
    assert result(tmp_path / "parts") == result(tmp_path / "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole")]
    assert weights[0] == weights[1]


def test_blocks_of_their_own_widths_are_trained_where_their_code_may_run(pruned, texts, tmp_path, capsys):
    cut, folder = pruned_llama(), tmp_path / "cut"
    slice_units(cut, {1: {"channels": torch.arange(9)}})
    export_model(cut, "per_layer", pruned, folder)
    assert main(words(folder, texts, tmp_path / "refused")) == 2
    assert "brings code of its own, which is not run here; valid is" in capsys.readouterr().err.splitlines()[-1]
    assert main(words(folder, texts, tmp_path / "out", "--run-code")) == 0
    assert (tmp_path / "out" / "modeling_per_layer.py").is_file()
    trained = load_model(tmp_path / "out", run_code=True)
    assert trained.model.layers[1].mlp.up_proj.out_features == 9
    assert not torch.equal(weights_of(trained), weights_of(cut))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--tokens", "20"), ("tokens: 20 given", "16 windows of 12")),
        (("--tokens", "many"), ("tokens", "many")),
        (("--text", "no.txt"), ("no.txt", "does not exist")),
        (("--alpha", "3"), ("alpha: given without rank", "give rank too, or leave it out")),
        (("--temperature", "3"), ("temperature: given without dense",)),
        (("--rank", "0"), ("rank: 0 given",)),
        (("--batch", "6", "--at-once", "4"), ("batch: 6 given", "4 windows")),
        (("--window", "1000"), ("window: 1000 given", "64")),
        (("--window", "0"), ("window: 0 given",)),
        (("--dense", "no-such-folder"), ("no-such-folder",)),
    ],
)
def test_a_mistake_is_one_line(pruned, texts, tmp_path, capsys, more, says):
    assert main(words(pruned, texts, tmp_path / "out", *more)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert all(part in lines[0] for part in says), lines
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_written_over(pruned, texts, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("", encoding="utf-8")
    assert main(words(pruned, texts, tmp_path / "out")) == 2
    assert "is not empty" in capsys.readouterr().err

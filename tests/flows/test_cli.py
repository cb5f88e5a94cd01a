"""What a mistake in the words gets: exit code 2 and one line that names the field, before any work."""

import json
import re
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from flows.choices import Oneshot
from flows.cli import build_parser, main
from flows.methods import parse_low_rank, parse_pruner, parse_update
from flows.parameters import oneshot_of, slice_of
from flows.presets import SWEEPS
from tasks.prune.weight.lowrank import LowRank
from tasks.prune.weight.svd import SVD, ActivationSVD
from tasks.record import home
from tasks.record.tables import TABLES
from tests.record.plausible import record_run


@pytest.fixture
def complain(artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture):
    """Run `espalier oneshot` with some words changed; return its one line of complaint."""

    def run(**changed: str) -> str:
        words = {"model": str(tiny_model), "pruner": "wanda", "pattern": "2:4", "samples": "4", "window": "32"}
        words |= {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"} | changed
        assert main(["oneshot", *(word for name, value in words.items() for word in (f"--{name}", value))]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = [line for line in printed.err.splitlines() if not line.startswith("espalier: watch this run")]
        assert len(lines) == 1, printed.err
        assert not (artifacts / "store" / "checkpoints").exists()
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"pruner": "wanta"}, ("pruner", "magnitude, wanda, ria, clearcut, sparsegpt")),
        ({"pruner": "sparsegpt,dump=0.1"}, ("pruner", "dump=0.1", "damp")),
        ({"pruner": "sparsegpt,damp=-1"}, ("damp", "-1")),
        ({"pruner": "sparsegpt,block=none"}, ("block", "none")),
        ({"pattern": "3:5"}, ("pattern", "3:5", "q_proj")),
        ({"pattern": "5:4"}, ("pattern", "5:4", "n <= m")),
        ({"pattern": "100%"}, ("pattern", "100%")),
        ({"pattern": "-3%"}, ("pattern",)),
        ({"pattern": "half"}, ("pattern", "half", "2:4")),
        ({"calibration": "dogs"}, ("dogs", "docs", "wikitext2")),
        ({"evaluation": "absent.jsonl"}, ("absent.jsonl",)),
        ({"samples": "0"}, ("samples", "0")),
        ({"samples": "many"}, ("samples", "many")),
        ({"samples": "4000"}, ("samples", "4000")),
        ({"window": "513"}, ("window", "513", "512")),
        ({"window": "512"}, ("window",)),
        ({"seed": "-1"}, ("seed", "-1")),
        ({"order": "random"}, ("order", "block", "group")),
        ({"device": "tpu"}, ("device: 'tpu' given, valid is auto, cpu, cuda or cuda:1",)),
        ({"model": "no-such-model"}, ("model", "no-such-model")),
        ({"update": "refitt"}, ("update", "refitt", "none, sweep, refit")),
        ({"update": "refit,drift=2"}, ("update", "drift", "0 to 1")),
        ({"update": "none,damp=1"}, ("update", "none", "damp=1")),
        ({"reconstruct": "epoch=3"}, ("reconstruct", "epoch=3", "epochs=…")),
        ({"reconstruct": "rate=0"}, ("reconstruct", "rate")),
        ({"reconstruct": "epochs=2", "samples": "1"}, ("samples", "hold out")),
        ({"pruner": "sparsegpt", "pattern": "50%@matrix"}, ("pattern", "50%@matrix", "use 50%")),
        ({"low-rank": "0.25", "pattern": "1:4"}, ("1:4",)),
        ({"low-rank": "2"}, ("low_rank", "share", "2")),
        ({"low-rank": "0.25", "reconstruct": "epochs=2"}, ("low_rank", "reconstruct")),
        ({"low-rank": "svdd"}, ("low_rank", "svdd", "low_rank, svd, activation_svd")),
        ({"low-rank": "svd,ranks=3"}, ("low_rank", "svd", "ranks=3", "linears=…", "rank=…")),
        ({"low-rank": "svd"}, ("pruner", "all linears")),
        ({"low-rank": "svd,linears=q_prj"}, ("linears", "q_prj", "q_proj, k_proj, v_proj, o_proj, gate_proj")),
        ({"low-rank": "svd,linears=self_attn+mlp"}, ("linears", "leave linears out")),
        ({"low-rank": "svd,rank=22,linears=mlp"}, ("rank: 22", "64 x 32", "1 to 21", "block 0, mlp.gate_proj")),
        ({"low-rank": "activation_svd,rank=0,linears=mlp"}, ("rank: 0", "1 or more")),
        ({"low-rank": "0.25,rank=3"}, ("low_rank", "rank=3", "share=…")),
        ({"pruner": "none"}, ("pruner", "none", "svd")),
        ({"pruner": "none", "low-rank": "svd,rank=4"}, ("pattern", "2:4", "0%")),
        ({"allocation": "owls"}, ("allocation", "owls", "uniform, owl")),
        ({"allocation": "owl"}, ("spread", "2:4")),
        ({"allocation": "[0.5, 0.5, 0.5]"}, ("allocation", "3 blocks", "has 2")),
        ({"allocation": "[0.5, 1.5]"}, ("allocation", "1.5", "block 1")),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(complain, changed: dict[str, str], says: tuple[str, ...]):
    line = complain(**changed)
    assert all(part in line for part in says), line


@pytest.mark.parametrize(
    "words",
    [
        {"low_rank": parse_low_rank("0.3,rounds=5,linears=q_proj+o_proj"), "pruner": parse_pruner("wanda")},
        {"low_rank": parse_low_rank("activation_svd,rank=4,linears=mlp"), "pruner": parse_pruner("wanda")},
        {"low_rank": parse_low_rank("svd"), "pruner": parse_pruner("none")},
        {"low_rank": parse_low_rank(""), "pruner": parse_pruner("sparsegpt,damp=0.02")},
        {"update": parse_update("none"), "pruner": parse_pruner("sparsegpt")},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    parameters = Oneshot.parse(**words)
    again = build_parser().parse_args(shlex.split(parameters.command())[1:])
    assert oneshot_of(again) == parameters
    assert Oneshot.model_validate_json(parameters.model_dump_json()) == parameters


def test_words_of_low_rank_become_what_they_say():
    assert parse_low_rank("0.25").build() == LowRank(share=0.25)
    assert parse_low_rank("share=0.3,rounds=5").build() == LowRank(share=0.3, rounds=5)
    assert parse_low_rank("").build() == LowRank()
    assert parse_low_rank("svd,rank=64,linears=q_proj+o_proj").build() == SVD(rank=64, linears=("q_proj", "o_proj"))
    assert parse_low_rank("activation_svd,damp=0.1").build() == ActivationSVD(damp=0.1)


def test_an_empty_text(complain, tmp_path: Path):
    (tmp_path / "empty.txt").write_text("")
    assert "empty" in complain(calibration=str(tmp_path / "empty.txt"))


@pytest.mark.parametrize(
    ("role", "rows", "window", "says"),
    [
        (
            "calibration",
            "[:2]",
            "32",
            "has 60 tokens, 128 are needed for 4 windows of 32; give more text, fewer --samples",
        ),
        ("evaluation", "[38:]", "64", "has 60 tokens, 64 are needed for one window of 64; give more text or a shorter"),
    ],
)
def test_a_text_that_is_too_short_is_told_before_a_server_starts(
    complain, stories: Path, monkeypatch: pytest.MonkeyPatch, role: str, rows: str, window: str, says: str
):
    monkeypatch.setattr("flows.cli.prefect_server", lambda: pytest.fail("a server was started"))
    assert f"{role}: {stories}{rows} {says}" in complain(**{role: f"{stories}{rows}", "window": window})


def test_a_row_without_text(complain, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"body": "x"}) + "\n")
    assert "text" in complain(evaluation=str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["slice", "--budget", "30%"], "budget: .*'30%'; say 0.3"),
        (["slice", "--budget", "2.5%"], "budget: .*'2.5%'; say 0.025"),
        (["slice", "--budget", "a third"], "budget: .*'a third'"),
    ],
)
def test_a_share_in_percent_is_told_as_a_number(words: list[str], says: str):
    with pytest.raises(ValueError, match=rf"^{says}\)$"):
        slice_of(build_parser().parse_args(words))


@pytest.mark.parametrize("short", ["--sample 8", "--calib docs"])
def test_an_option_is_written_out(short: str):
    with pytest.raises(ValueError, match=f"unrecognized arguments: {short}"):
        build_parser().parse_args(["oneshot", "--pruner", "wanda", "--pattern", "2:4", *short.split()])


@pytest.fixture
def broken_model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "broken"))


def test_a_model_without_weights(complain, broken_model: Path):
    (broken_model / "model.safetensors").unlink()
    assert "weights" in complain(model=str(broken_model))


def test_a_model_with_nan(complain, broken_model: Path):
    weights = load_file(broken_model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = torch.nan
    save_file(weights, broken_model / "model.safetensors", metadata={"format": "pt"})
    line = complain(model=str(broken_model))
    assert "model.layers.1.mlp.up_proj.weight" in line
    assert "NaN" in line


def test_a_tokenizer_whose_ids_exceed_the_vocabulary(complain, broken_model: Path):
    tokenizer = json.loads((broken_model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["tree"] = 99
    (broken_model / "tokenizer.json").write_text(json.dumps(tokenizer))
    line = complain(model=str(broken_model))
    assert "99" in line
    assert "vocabulary" in line


def test_an_artifacts_folder_that_cannot_be_written(complain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path / "file" / "artifacts"))
    assert "artifacts" in complain()


def test_a_full_disk(complain, monkeypatch: pytest.MonkeyPatch):
    full = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(home.shutil, "disk_usage", lambda path: full)
    assert "GB needed" in complain()


def test_an_unknown_preset_and_an_unknown_run(artifacts: Path, capsys: pytest.CaptureFixture):
    assert main(["sweep", "--preset", "domo"]) == 2
    assert "demo" in capsys.readouterr().err
    assert main(["report", "yesterday"]) == 2
    assert "yesterday" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("sweep", "--preset PRESET", SWEEPS),
        ("oneshot", "--order ORDER", get_args(Oneshot.model_fields["order"].annotation)),
    ],
)
def test_the_help_of_an_option_names_all_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, command: str, option: str, names: Iterable[str]
):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    [said] = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith(option)]
    assert [name for name in names if not re.search(rf"\b{name}\b", said.replace(option, ""))] == []


def test_a_report_of_a_sweep_that_was_stopped_says_so(artifacts: Path, capsys: pytest.CaptureFixture):
    record_run(sweep="s1", sweep_points=3)
    for words, says in ((["report"], "espalier: sweep s1: 1 of 3 runs, not finished\n"), (["report", "r1"], "")):
        assert main(words) == 0
        assert capsys.readouterr().err == says
    assert "<h1>stories: 1 of 3 runs, not finished</h1>" in (artifacts / "reports" / "s1" / "index.html").read_text()


def test_sql_lists_the_tables(artifacts: Path, capsys: pytest.CaptureFixture):
    artifacts.mkdir(exist_ok=True)
    assert main(["sql", "show tables"]) == 0
    assert {line.strip("| ") for line in capsys.readouterr().out.splitlines()[2:]} == set(TABLES)


def test_wrong_sql_is_one_line(artifacts: Path, capsys: pytest.CaptureFixture):
    assert main(["sql", "selct 1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

"""The comparison with other libraries: how sides are measured and judged, what is recorded of one that cannot."""

import json
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import peers_environments, peers_sides
from bench.peers_compare import Judge, PeerRow, ask, iou_of_keeps
from bench.peers_environments import last_line, python_of
from bench.peers_sides import LLM_COMPRESSOR, MODELOPT, Side
from bench.peers_subjects import SUBJECTS, Subject
from bench.peers_table import PeerBench, write
from bench.peers_worker import CALIBRATION, IDS, NotOffered, do, linear_weights
from bench.sides import ONE_PASS, SAME_ORDER
from tests.cases import BLOCKS, VOCABULARY, batches, llama


@pytest.fixture
def folder(tmp_path):
    """A tiny checkpoint with calibration windows."""
    llama().save_pretrained(tmp_path)
    save_file({CALIBRATION: torch.cat(list(batches()))}, tmp_path / IDS)
    return tmp_path


def test_a_job_is_measured_and_its_weights_come_back(folder):
    seen = []

    def halve(model, windows, method, pattern):
        seen.append((method, pattern, sum(len(ids) for ids in windows)))
        for name in linear_weights(model):
            weight = model.get_submodule(name).weight.data
            weight[:, : weight.shape[1] // 2] = 0
        return model

    job = {"folder": str(folder), "method": "wanda", "pattern": "50%", "windows": 3}
    answer = do(halve, **job, into=str(folder / "pruned.safetensors"))
    assert seen == [("wanda", "50%", 3)]
    assert answer["zeros"] == 0.5
    assert answer["seconds"] > 0
    assert answer["peak_bytes"] >= 0
    pruned, dense = load_file(folder / "pruned.safetensors"), linear_weights(llama())
    assert len(pruned) == 7 * BLOCKS
    for name, weight in pruned.items():
        half = weight.shape[1] // 2
        assert torch.equal(weight[:, half:], dense[name][:, half:])


def test_the_peak_holds_what_a_side_allocates_and_frees(folder):
    def waste(model, windows, method, pattern):
        torch.ones(2**24).sum()
        model.model.layers[0].mlp.up_proj.weight.data.zero_()
        return model

    answer = do(waste, folder=str(folder), method="wanda", pattern="50%", windows=1, into=None)
    assert answer["peak_bytes"] >= 0.9 * 2**26


def test_who_prunes_nothing_or_cannot_says_so(folder):
    def cannot(model, windows, method, pattern):
        raise NotOffered("no such method")

    job = {"folder": str(folder), "method": "wanda", "pattern": "50%", "windows": 1, "into": None}
    assert do(cannot, **job) == {"not_run": "no such method"}
    assert "left every weight as it was" in do(lambda model, *_: model, **job)["not_run"]


@pytest.mark.slow  # a process that imports torch
def test_a_process_answers_and_its_failure_is_a_reason(folder):
    job = {"folder": str(folder), "method": "magnitude", "pattern": "2:4", "windows": 1, "into": None}
    logs = folder / "logs"
    logs.mkdir()
    with Side(ONE_PASS, 1, logs) as side:
        assert "looks at the data" in ask(side, job)["not_run"]
        assert side.versions["torch"] == torch.__version__
        failed = ask(side, job | {"method": "wanda", "pattern": "3:5"})
        assert failed["not_run"].startswith("it failed: ValueError: pattern: 3:5 does not divide the 32 inputs of")


def test_an_environment_that_cannot_be_made_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_environments, "ENVIRONMENTS", tmp_path)
    refused = subprocess.CompletedProcess([], 1, stdout="", stderr="Looking\nERROR: no such version\n")
    monkeypatch.setattr(peers_environments.subprocess, "run", lambda *_, **__: refused)
    with Side(MODELOPT, 1, tmp_path) as side:
        assert ask(side, {}) == {"not_run": "it could not be installed: ERROR: no such version"}
    assert not (tmp_path / MODELOPT / "requirements.txt").exists()


def test_an_environment_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(peers_environments.subprocess, "run", lambda *_, **__: pytest.fail("installed again"))
    (tmp_path / LLM_COMPRESSOR).mkdir()
    wanted = "\n".join(peers_environments.REQUIREMENTS[LLM_COMPRESSOR]) + "\n"
    (tmp_path / LLM_COMPRESSOR / "requirements.txt").write_text(wanted)
    assert python_of(LLM_COMPRESSOR) == tmp_path / LLM_COMPRESSOR / "bin" / "python"


def test_every_side_that_is_a_peer_has_pinned_requirements():
    assert set(peers_sides.PEERS) == set(peers_environments.REQUIREMENTS)
    for requirements in peers_environments.REQUIREMENTS.values():
        assert all("==" in requirement for requirement in requirements)


def test_the_last_line_is_the_error():
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line("\n") == "it said nothing"


def test_the_iou_by_hand():
    one = {"a": torch.tensor([[1.0, 2.0, 0.0, 0.0]]), "b": torch.tensor([[3.0, 0.0]])}
    other = {"a": torch.tensor([[1.0, 0.0, 5.0, 0.0]]), "b": torch.tensor([[4.0, 0.0]])}
    assert iou_of_keeps(one, other) == 2 / 4
    assert iou_of_keeps(one, one) == 1


def test_dense_weights_have_no_error_and_none_at_all_is_what_the_residual_leaves():
    held = torch.randint(0, VOCABULARY, (2 * 256,), generator=torch.Generator().manual_seed(0))
    windows = held.reshape(2, 256)
    subject = Subject(about="", trained=True, load=llama, calibration=lambda: windows, held_out=lambda: held)
    judge, dense = Judge(subject), linear_weights(llama())
    unpruned = judge.judge(dense)
    assert unpruned["error"] == 0
    model = llama()
    embedded = model.model.norm(model.model.embed_tokens(windows)).double()
    own = Judge(subject).dense_BTD
    expected = ((embedded - own).square().sum() / own.square().sum()).item()
    emptied = judge.judge({name: torch.zeros_like(weight) for name, weight in dense.items()})
    assert emptied["error"] == pytest.approx(expected, rel=1e-5)
    assert emptied["ppl"] != unpruned["ppl"]


def test_the_random_subject_has_the_size_that_it_says():
    with torch.device("meta"):
        model = SUBJECTS["llama88M"].load()
    assert round(model.num_parameters() / 1e6, 1) == 88.1


def test_the_first_block_is_that_of_the_whole_model():
    nothing = dict.fromkeys(("calibration", "held_out"), lambda: torch.zeros(0))
    whole = Subject(about="tiny", trained=True, load=llama, **nothing)
    cut, dense = whole.first_block(), linear_weights(llama())
    weights = linear_weights(cut.load())
    assert len(weights) == 7
    assert all(torch.equal(weight, dense[name]) for name, weight in weights.items())
    assert cut.load().config.num_hidden_layers == 1
    assert not cut.trained


def test_rows_are_stored_raw_and_as_tables(tmp_path):
    def row(side, **facts):
        nothing = {
            "not_run": None,
            "times_s": [],
            "peak_bytes": [],
            "zeros": None,
            "iou": {},
            "error": None,
            "ppl": None,
        }
        return PeerRow(model="tiny", method="wanda", pattern="2:4", side=side, **{**nothing, **facts})

    ran = {"zeros": 0.5, "error": 0.25}
    iou = {ONE_PASS: 0.5, SAME_ORDER: 1.0}
    bench = PeerBench(
        command="python -m bench.peers",
        date="2030-01-02T03:04:05+00:00",
        machine="{}",
        versions={LLM_COMPRESSOR: {"torch": "2"}, MODELOPT: {}},
        threads=1,
        rounds=2,
        load=(0.0, 1.0),
        skipped=("stories3M, absent",),
        about={"tiny": "a model"},
        rows=(
            row(LLM_COMPRESSOR, times_s=[4.0, 4.0], peak_bytes=[2**22] * 2, iou=iou, ppl=7.0, **ran),
            row(MODELOPT, not_run="it has no Wanda"),
            row(ONE_PASS, times_s=[1.0, 1.0], peak_bytes=[2**23] * 2, iou=iou, **ran),
            row(SAME_ORDER, times_s=[2.0, 2.0], peak_bytes=[2**21] * 2, iou=iou, **ran),
        ),
    )
    text = write(bench, tmp_path / "results", "peers")
    faster = "4.00 (4.00 to 4.00) | 2.00 (2.00 to 2.00)"
    assert (
        f"| wanda | 2:4 | llm-compressor | 4.00 | {faster} | 4.0 | 2.00 | 0.50 | 0.50000 | 1.00000 | 0.2500 | 7.000 |"
        in text
    )
    assert "|  |  | espalier, by group | 1.00 |  |  | 8.0 |  |  |  | 1.00000 | 0.2500 |  |" in text
    assert "- Not run: modelopt, wanda 2:4: it has no Wanda." in text
    assert "\nllm-compressor: torch 2.\n" in text
    assert "\nmodelopt: " not in text
    assert "Skipped: stories3M, absent." in text
    assert (tmp_path / "results" / "peers.md").read_text() == text
    stored = json.loads((tmp_path / "results" / "2030-01-02-peers.json").read_text())
    assert stored["rows"][0]["times_s"] == [4.0, 4.0]

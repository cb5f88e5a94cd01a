"""The method of one's own that the README shows, run from the README's very text."""

import json
import re
from pathlib import Path

import pytest

from flows.cli import main
from flows.methods import parse_pruner
from tasks.record.metrics import query

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "ScorePruner" in block)
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    path = tmp_path / "softened.py"
    path.write_text(code)
    return path


def run(capsys: pytest.CaptureFixture, own_file: Path, tiny_model: Path, stories: Path, power: str) -> dict:
    words = {"model": tiny_model, "pruner": f"{own_file}:Softened,power={power}", "pattern": "2:4", "samples": 4}
    words |= {"window": 32, "calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    assert main(["oneshot", *given, "--no-speed", "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_readmes_method_gets_everything(server, artifacts, own_file, tiny_model, stories, capsys):
    outcome = run(capsys, own_file, tiny_model, stories, "0.7")
    assert outcome["result"]["sparsity"] == 0.5
    assert outcome["result"]["size_bytes"] < outcome["dense"]["size_bytes"]
    rows = query("select distinct method from linears where run = $run", {"run": outcome["run"]})
    assert rows == [{"method": "softened.py:Softened,power=0.7"}]
    assert "softened.py:Softened" in Path(outcome["report"]).read_text()
    cached = query("select cached from stages where run = $run and stage = 'prune'", {"run": outcome["run"]})
    assert cached == [{"cached": False}]

    again = run(capsys, own_file, tiny_model, stories, "0.7")
    assert again["checkpoint"] == outcome["checkpoint"]
    own_file.write_text(own_file.read_text().replace("absolute(weight_OI) *", "-absolute(weight_OI) *"))
    edited = run(capsys, own_file, tiny_model, stories, "0.7")
    assert edited["checkpoint"] != outcome["checkpoint"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("Softened(ScorePruner)", "Softened(object)"), "derives from ScorePruner"),
        (("import InputNorm", "import InputNoun"), "cannot be run: ImportError"),
        (("class Softened", "class Hardened"), "Softened"),
    ],
)
def test_a_file_that_holds_no_method_is_a_mistake_in_the_words(own_file, tiny_model, capsys, change, says):
    own_file.write_text(own_file.read_text().replace(*change))
    assert main(["oneshot", "--model", str(tiny_model), "--pruner", f"{own_file}:Softened", "--pattern", "2:4"]) == 2
    assert says in capsys.readouterr().err


WITH_FIELDS = """
import torch
from dataclasses import dataclass
from tasks.prune.weight.pruner import Pruner, ScorePruner, absolute

@dataclass(frozen=True, kw_only=True)
class Mine(ScorePruner):
    only: tuple[str, ...] = ()
    sharp: bool = False
    power: TYPE = 1.0

    def score(self, weight_OI, stat):
        return absolute(weight_OI)

@dataclass(frozen=True, kw_only=True)
class Unfinished(Pruner):
    def prune(self, weight_OI, stat, pattern):
        return weight_OI
"""


def test_hyper_parameters_of_every_kind_are_words_that_read_back(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WITH_FIELDS.replace("TYPE", "float"))
    said = parse_pruner(f"{path}:Mine,only=q_proj+o_proj,sharp=true,power=2")
    made = said.build()
    assert (made.only, made.sharp, made.power) == (("q_proj", "o_proj"), True, 2.0)
    assert parse_pruner(str(said)) == said


@pytest.mark.parametrize("kind", ["torch.Tensor", "'Unheard'"])
def test_a_hyper_parameter_that_no_word_can_give_is_a_mistake_in_the_words(tmp_path, kind):
    path = tmp_path / "mine.py"
    path.write_text(WITH_FIELDS.replace("TYPE", kind))
    with pytest.raises(ValueError, match=r"^pruner: Mine in .* has a hyper-parameter of another type than .*\)$"):
        parse_pruner(f"{path}:Mine")


def test_what_a_class_lacks_to_be_a_method_is_told(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WITH_FIELDS.replace("TYPE", "float"))
    with pytest.raises(ValueError, match=r"^pruner: Unfinished in .* lacks _prune, score; a ScorePruner needs score "):
        parse_pruner(f"{path}:Unfinished")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("stat.norm_I().log() * weight_OI * float('nan')", "block 0, self_attn.q_proj: score: NaN"),
        ("weight_OI[:, :4]", r"block 0, self_attn.q_proj: score: .* of shape \(32, 4\) made by"),
        (
            "weight_OI.norms",
            r"block 0, self_attn.q_proj: pruner: Softened\(.*\) failed at .*softened.py:\d+: AttributeError",
        ),
    ],
)
def test_a_score_that_is_none_fails_by_the_name_of_the_linear(
    server, artifacts, own_file, tiny_model, stories, capsys, body, says
):
    text = own_file.read_text()
    own_file.write_text(text[: text.index("return ")] + f"return {body}\n")
    words = ["--window", "32", "--samples", "4", "--calibration", f"{stories}[:20]", "--evaluation", f"{stories}[20:]"]
    given = ["--model", str(tiny_model), "--pruner", f"{own_file}:Softened", "--pattern", "2:4", "--no-speed"]
    assert main(["oneshot", *given, *words]) == 1
    assert re.search(says, capsys.readouterr().err)

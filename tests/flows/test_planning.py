"""What a run would take is told from the runs there are, and nothing is computed for it."""

import json
import shlex
from pathlib import Path

import pytest

from flows.choices import Oneshot
from flows.cli import main
from flows.methods import parse_pruner
from flows.oneshot import oneshot
from tasks.record.metrics import query


def test_a_plan_has_the_stages_of_the_run_that_is_most_alike(
    artifacts: Path, tiny_model: Path, stories: Path, capsys: pytest.CaptureFixture
):
    words = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]", "samples": 8, "window": 32}
    parameters = Oneshot.parse(model=str(tiny_model), pruner=parse_pruner("wanda"), speed=False, **words)
    command = shlex.split(parameters.command())[1:]
    assert main(["plan", *command]) == 0
    assert "nothing to forecast it from" in capsys.readouterr().err

    outcome = oneshot(parameters)
    seen = {row["stage"]: row for row in query("select * from stages")}
    assert main(["plan", *command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["after"], found["same"], found["warnings"]) == (outcome.run, True, [])
    assert [step["stage"] for step in found["steps"]] == [*seen]
    for step in found["steps"]:
        of_stage = seen[step["stage"]]
        assert step["least"] == step["seconds"] == step["most"] == of_stage["seconds"]
        assert step["peak_bytes"] == of_stage["peak_bytes"] > 10**8
    assert found["seconds"] == pytest.approx(sum(row["seconds"] for row in seen.values()))
    sizes = {row["kind"]: row["size_bytes"] for row in query("select kind, size_bytes from artifacts")}
    assert found["stored_bytes"] == sizes["checkpoint"] + 2 * sizes["packed"]

    assert main(["plan", *command, "--samples", "16", "--pattern", "50%"]) == 0
    printed = capsys.readouterr().out
    assert "| prune |" in printed
    assert "of the same model and method" in printed
    assert main(["plan", *command, "--pattern", "3:5"]) == 2
    assert len(query("select run from runs")) == 1

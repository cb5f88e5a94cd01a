"""Every deployment of prefect.yaml names a flow that is there and takes its parameters."""

import importlib
from pathlib import Path

import pytest
import yaml

FLOWS = ("oneshot", "slice", "iterative", "activation", "profiles", "controller", "evaluate", "sweep", "pretrain")
ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_can_run(deployment: dict):
    file, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
    flow.validate_parameters(deployment.get("parameters", {}))


def test_every_flow_is_deployed_and_one_on_a_schedule():
    flows = {deployment["entrypoint"].partition(":")[0] for deployment in DEPLOYMENTS}
    assert flows == {f"flows/{name}.py" for name in FLOWS}
    assert sum(bool(deployment.get("schedules")) for deployment in DEPLOYMENTS) == 1

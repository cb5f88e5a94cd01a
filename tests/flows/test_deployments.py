"""Every deployment of prefect.yaml and of the files of deploy/ names a flow that is there and takes its parameters."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.utilities.templating import find_placeholders

FLOWS = ("oneshot", "slice", "iterative", "activation", "profiles", "controller", "evaluate", "sweep", "pretrain")
ROOT = Path(__file__).parents[2]
FILES = {name: yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) for name in (
    "prefect.yaml", "deploy/docker/prefect.yaml", "deploy/kubernetes/prefect.yaml"
)}  # fmt: skip
DEPLOYMENTS = [(file, deployment) for file, content in FILES.items() for deployment in content["deployments"]]
TEMPLATE = ROOT / "deploy/kubernetes/base-job-template.json"


def flow_of(deployment: dict) -> str:
    return deployment["entrypoint"].partition(":")[0].removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize(
    "deployment", [each for _, each in DEPLOYMENTS], ids=[f"{file}-{flow_of(each)}" for file, each in DEPLOYMENTS]
)
def test_a_deployment_can_run(deployment: dict):
    name = deployment["entrypoint"].partition(":")[2]
    flow = getattr(importlib.import_module(flow_of(deployment)), name)
    flow.validate_parameters(deployment.get("parameters", {}))


def test_every_flow_is_deployed_and_one_on_a_schedule():
    deployments = FILES["prefect.yaml"]["deployments"]
    assert {flow_of(deployment) for deployment in deployments} == {f"flows.{name}" for name in FLOWS}
    assert sum(bool(deployment.get("schedules")) for _, deployment in DEPLOYMENTS) == 1


def test_a_job_of_kubernetes_asks_for_nothing_that_the_pool_does_not_have():
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    asked = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    known = set(template["variables"]["properties"])
    assert asked == known
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert {"restartPolicy", "parallelism", "completions"} <= set(pod)  # the worker refuses a job without them
    said = FILES["deploy/kubernetes/prefect.yaml"]["definitions"]["pool"]["job_variables"]
    assert set(template["variables"]["required"]) <= set(said) <= known


@pytest.mark.slow
def test_prefect_deploys_to_docker_and_to_kubernetes(server: str, artifacts: Path):
    environment = os.environ | {
        "ESPALIER_ARTIFACTS": "/data/artifacts",
        "ESPALIER_IMAGE": "registry.example/espalier:1",
    }

    def prefect(*words: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    prefect("work-pool", "create", "espalier-docker", "--type", "docker")
    pool = ("espalier-kubernetes", "--type", "kubernetes", "--base-job-template", str(TEMPLATE))
    prefect("work-pool", "create", *pool)
    for kind in ("docker", "kubernetes"):
        prefect("deploy", "--all", "--prefect-file", f"deploy/{kind}/prefect.yaml")
    with get_client(sync_client=True) as client:
        made = {kind: client.read_deployment_by_name(f"oneshot/{kind}") for kind in ("docker", "kubernetes")}
        assert [client.read_work_pool(f"espalier-{kind}").type for kind in made] == list(made)
    assert {kind: deployment.work_pool_name for kind, deployment in made.items()} == {
        kind: f"espalier-{kind}" for kind in made
    }
    assert made["docker"].job_variables["volumes"] == ["/data/artifacts:/artifacts"]
    assert made["kubernetes"].job_variables["image"] == "registry.example/espalier:1"

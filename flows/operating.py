"""What `espalier up` arranges with Prefect's server: the pool, how much of it at once, and who is told of a failure.

Each is as the latest `espalier up` says: a limit or an address that it does not name is none.
"""

from typing import cast
from uuid import UUID

from prefect.automations import AutomationCore, CallWebhook, EventTrigger, Posture, ResourceSpecification
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from prefect.workers.process import ProcessWorker

POOL = "espalier"
GPU = "tag:gpu"  # Prefect's name of the limit on tasks with the tag that a stage on a GPU has
WATCH = "espalier-run-failed"
SAID = '{"text": {{ ("espalier: " ~ flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.message) | tojson }}}'


def make_pool(client: SyncPrefectClient, runs: int | None) -> None:
    """The pool whose worker starts each run as a process, `runs` of them at once; None: as many as are asked for."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:  # its template at hand, so that nobody asks Prefect's registry for one
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=runs))


def limit_gpu_stages(client: SyncPrefectClient, gpus: int) -> None:
    """At most `gpus` stages on a GPU at once, of all runs that talk to this server; the others wait for their turn."""
    client.upsert_global_concurrency_limit_by_name(GPU, gpus)


def tell_of_failures(client: SyncPrefectClient, url: str | None) -> None:
    """Have the server POST `{"text": …}` to the address when a run fails or crashes; None: it tells nobody."""
    for automation in client.read_automations_by_name(WATCH):
        client.delete_automation(automation.id)
    if url is None:
        return
    hook = Webhook(url=url, headers=SecretDict({"Content-Type": "application/json"}))  # type: ignore[arg-type]
    kept = cast(UUID, hook.save(WATCH, overwrite=True))  # its address is encrypted there
    failed = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    told = CallWebhook(block_document_id=kept, payload=SAID)
    client.create_automation(AutomationCore(name=WATCH, trigger=failed, actions=[told]))

"""The process that takes the runs which people start in Prefect's UI: `python -m flows.runner`, a part of the stack."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from cluster.settings import Settings
from flows.forms import FORMS
from flows.reconcile import reconcile

LOOK_SECONDS = 10.0
SILENCE_SECONDS = 90
"""Three heartbeats: the shortest time between two that Prefect allows is 30 s."""
HEARTBEAT = "prefect.flow-run.heartbeat"
ZOMBIES = "foundation: runs whose heartbeats stopped"

SET_ON_THE_PAGE = {"schedules", "concurrency_limit", "concurrency_options", "paused", "tags", "parameters"}
"""What people set on a deployment's page. Registered again with nothing in them, a deployment would lose them."""


async def serve() -> None:
    """Register one deployment a form, and take runs until SIGTERM.

    The deployments are not paused at the end: a run that is started while the runner is away waits for the next one.
    """
    runner = Runner(name="foundation", pause_on_shutdown=False, webserver=True)
    for form in FORMS:
        deployment = await form.ato_deployment(name=form.name, entrypoint_type=EntrypointType.MODULE_PATH)
        deployment.model_fields_set.difference_update(SET_ON_THE_PAGE)  # what is not set is not sent
        await runner.aadd_deployment(deployment)
    watch = asyncio.create_task(reconcile_for_ever())
    await register_zombie_automation()
    await runner.start()
    watch.cancel()


async def reconcile_for_ever() -> None:
    """Look every few seconds for what was killed."""
    settings = Settings.from_environment()
    while True:
        try:
            await asyncio.to_thread(reconcile, settings, print_line)
        except Exception as error:  # a service that is away is `foundation status`'s affair; the next look may see it
            print_line(f"reconcile: {type(error).__name__}: {error}")
        await asyncio.sleep(LOOK_SECONDS)


def print_line(text: str) -> None:
    """Into the runner's log, at once."""
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {text}", flush=True)


async def register_zombie_automation() -> None:
    """Let the Prefect server itself call a run crashed whose heartbeats stopped: it can when every runner is dead."""
    names = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")
    ended = {f"prefect.flow-run.{name}" for name in names}
    automation = AutomationCore(
        name=ZOMBIES,
        description="A run whose process stopped to send heartbeats is crashed. Retry it: it continues.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *ended},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: its process is gone. Retry it.")],
    )
    async with get_client() as client:
        for known in await client.read_automations_by_name(ZOMBIES):
            await client.delete_automation(known.id)
        await client.create_automation(automation)


if __name__ == "__main__":  # a run is a spawned process that imports this module again: it must not serve
    asyncio.run(serve())

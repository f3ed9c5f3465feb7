"""The process that takes the runs which people start in Prefect's UI: `python -m flows.runner`, a part of the stack."""

from __future__ import annotations

import asyncio

from prefect.deployments.runner import EntrypointType
from prefect.runner import Runner

from flows.forms import FORMS


async def serve() -> None:
    """Register one deployment a form, and take runs until SIGTERM.

    The deployments are not paused at the end: a run that is started while the runner is away waits for the next one.
    """
    runner = Runner(name="foundation", pause_on_shutdown=False, webserver=True)
    for form in FORMS:
        deployment = await form.ato_deployment(name=form.name, entrypoint_type=EntrypointType.MODULE_PATH)
        await runner.aadd_deployment(deployment)
    await runner.start()


if __name__ == "__main__":  # a run is a spawned process that imports this module again: it must not serve
    asyncio.run(serve())

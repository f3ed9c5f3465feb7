"""*Suspend* on a run's page: the stage at work saves and ends, the process leaves; *Resume* continues in a new one.

Prefect marks the run as paused and tells nobody, so the run looks at its own state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import Pause

from foundation_core.errors import Stopped

LOOK_SECONDS = 2.0


@contextmanager
def pausable(run_id: UUID, stop: Callable[[], None]) -> Iterator[None]:
    """Stop the work within once somebody paused the flow run.

    Args:
        stop: asks the work to save and to end with `Stopped`.

    Raises:
        Pause: to Prefect's engine, which then leaves the state as it is.
    """
    ended, paused = threading.Event(), threading.Event()

    def look() -> None:
        with get_client(sync_client=True) as client:
            while not ended.wait(LOOK_SECONDS):
                if _is_paused(client, run_id):
                    paused.set()
                    stop()

    threading.Thread(target=look, name="pause", daemon=True).start()
    try:
        yield
    except Stopped as stopped:
        if paused.is_set():
            raise Pause from stopped
        raise
    finally:
        ended.set()


def _is_paused(client: SyncPrefectClient, run_id: UUID) -> bool:
    try:
        state = client.read_flow_run(run_id).state
    except HTTPError:  # the API is away, and with it whoever could have paused the run
        return False
    return state is not None and state.is_paused()

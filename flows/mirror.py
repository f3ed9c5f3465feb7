"""Shows a run in Prefect while it goes on, by a thread that nobody waits for, as `cluster/mirror.py` does in MLflow.

The event log of a stage is the record. Its lines for people, its failures and its recoveries go into the log and the
event feed of the flow run; a file beside it says how far that came. What was written while Prefect was away is told
when it is back: by this run, or by the next one that makes or reuses the stage.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, Self
from uuid import NAMESPACE_OID, UUID, uuid5

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import LogCreate
from prefect.context import FlowRunContext
from prefect.events import Event, RelatedResource, Resource

from cluster.leases import is_held
from cluster.session import Report
from foundation_core.events import EventLog, last_event, read_events
from foundation_core.failures import told
from foundation_core.files import read_json, write_json

OFFSET_FILE = "prefect.json"
"""Beside the event log: how many of its bytes Prefect was told."""
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 10.0
AWAY_SECONDS = 5.0
"""How long Prefect must not answer before that is a failure."""
PATIENCE_SECONDS = 30.0
"""How long after the last stage an absent Prefect is waited for; the flow cannot end without it anyway."""
MOST_EVENTS = 200
"""Told in one request."""


@dataclass
class _Record:
    """The event log of a stage, and how far Prefect was told of it."""

    stage: str
    folder: Path
    offset: int

    def fresh(self) -> list[tuple[int, dict[str, Any]]]:
        """What Prefect has not been told, each with the offset behind it, as far as one request goes."""
        found = []
        for offset, event in read_events(self.folder, self.offset):
            if event["kind"] in ("say", "failure", "recovered"):
                found.append((offset, event))
            if len(found) == MOST_EVENTS:
                break
            if not found:
                self.offset = offset
        return found


class PrefectMirror:
    """The Prefect side of one flow run; made within it.

    Args:
        say: told when something is given up.
    """

    def __init__(self, say: Report) -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        self._run_id, self._related = context.flow_run.id, _related(context)
        self._say = say
        self._records: dict[Path, _Record] = {}
        self._shows: deque[Callable[[], None]] = deque()
        self._failed_before = False
        self._away_since: float | None = None
        self._away_in: Path | None = None
        self._at_work: Path | None = None
        self._complete = False
        self._ended = threading.Event()
        # a copied context: what is shown belongs to the flow run of the caller
        self._thread = threading.Thread(target=partial(copy_context().run, self._mirror), name="prefect", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Tell the rest if Prefect answers; say so if it does not."""
        self._ended.set()
        self._thread.join(PATIENCE_SECONDS + ANSWER_SECONDS)  # it gives up by itself, unless a call hangs
        if not self._complete:
            text = "Prefect was away: the run's page lacks what was made and what failed; both are kept on disk"
            self._say("pipeline", {"kind": "say", "text": text})

    def begin(self, stage: str, folder: Path) -> None:
        """Follow a stage that begins, from where an earlier attempt's mirror came to."""
        path = folder / OFFSET_FILE
        if not path.exists():
            write_json(path, {"offset": 0})
        self._at_work = folder
        self.catch_up(stage, folder)

    def catch_up(self, stage: str, folder: Path) -> None:
        """Tell what Prefect missed of a stage, if it was ever told of it."""
        path = folder / OFFSET_FILE
        if path.exists() and folder not in self._records:
            self._records[folder] = _Record(stage, folder, read_json(path)["offset"])

    def show(self, show: Callable[[], None]) -> None:
        """Make an artifact once Prefect answers, in the order of the calls."""
        self._shows.append(show)

    def _mirror(self) -> None:
        give_up = float("inf")
        while time.monotonic() < give_up:
            ended = self._ended.is_set()
            if self._tell() and ended:
                self._complete = True
                return
            if ended:
                give_up = min(give_up, time.monotonic() + PATIENCE_SECONDS)
                time.sleep(LOOK_SECONDS)
            self._ended.wait(LOOK_SECONDS)

    def _tell(self) -> bool:
        """Tell and show what is new; False if Prefect did not take it, and the next look tries again."""
        try:
            with get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client:
                client.request("GET", "/health")
                for record in list(self._records.values()):
                    while events := record.fresh():
                        self._send(client, record, events)
                self._show_all(client)
        except Exception as away:  # of httpx, of Prefect or of a proxy between: nothing of it may end the telling
            self._tell_away(away)
            return False
        self._tell_back()
        return True

    def _show_all(self, client: SyncPrefectClient) -> None:
        """Make what waits; what fails twice although Prefect answers is given up, and holds nothing up."""
        while self._shows:
            try:
                self._shows[0]()
            except Exception as error:  # of whatever is shown: the run goes on without it
                client.request("GET", "/health")
                if not self._failed_before:
                    self._failed_before = True
                    raise
                text = f"a part of the run's page could not be made: {type(error).__name__}: {error}"
                self._say("pipeline", {"kind": "say", "text": text})
            self._failed_before = False
            self._shows.popleft()

    def _send(self, client: SyncPrefectClient, record: _Record, events: Iterable[tuple[int, dict[str, Any]]]) -> None:
        feed = [self._event(record, offset, event) for offset, event in events if event["kind"] != "say"]
        if feed:
            client.request("POST", "/events", json=[each.model_dump(mode="json") for each in feed])
        client.create_logs([self._line(record.stage, event) for _, event in events])
        record.offset = max(offset for offset, _ in events)
        write_json(record.folder / OFFSET_FILE, {"offset": record.offset})

    def _event(self, record: _Record, offset: int, event: Mapping[str, Any]) -> Event:
        """For automations that wait for `foundation.failure.<class>` or `foundation.recovered.<class>`."""
        resource = {
            "prefect.resource.id": f"foundation.stage.{self._run_id}.{record.stage}",
            "prefect.resource.name": record.stage,
        }
        return Event(
            id=uuid5(NAMESPACE_OID, f"{record.folder}:{offset}:{event['time']}"),  # told twice, it is there once
            occurred=_when(event),
            event=f"foundation.{event['kind']}.{event['failure']}",
            resource=Resource(resource),
            related=self._related,
            payload={**event, "told": told(event)},
        )

    def _line(self, stage: str, event: Mapping[str, Any]) -> LogCreate:
        return LogCreate(
            name="prefect.flow_runs",
            level=WARNING if event["kind"] == "failure" else INFO,
            message=f"{stage}: {event['text'] if event['kind'] == 'say' else told(event)}",
            timestamp=_when(event),
            flow_run_id=self._run_id,
        )

    def _tell_away(self, away: Exception) -> None:
        """An event once Prefect was away for some looks: MLflow has it at once, Prefect later."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        elif self._away_in is None and now - self._away_since >= AWAY_SECONDS and self._job_speaks():
            self._away_in = self._at_work
            self._write("failure", attempt=None, budget_left=None, what=f"no answer ({type(away).__name__})")

    def _tell_back(self) -> None:
        """The end of an outage, in the log that has its beginning, as long as its job speaks."""
        if self._away_since is not None and self._away_in == self._at_work and self._job_speaks():
            self._write("recovered", seconds=round(time.monotonic() - self._away_since, 3))
        self._away_since, self._away_in = None, None

    def _write(self, kind: str, **fields: Any) -> None:
        assert self._at_work is not None
        EventLog(self._at_work).write(kind, failure="tracking_away", service="Prefect", step=None, **fields)

    def _job_speaks(self) -> bool:
        """Whether an attempt goes on: the last word of one that is over is its event `end`."""
        folder = self._at_work
        return folder is not None and is_held(folder) and last_event(folder).get("kind") != "end"


def _when(event: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(event["time"], UTC)


def _related(context: FlowRunContext) -> list[RelatedResource]:
    """The run, its flow and its deployment, as Prefect's own events name them."""
    run = context.flow_run
    assert run is not None
    found: list[tuple[str, UUID | None, str]] = [
        ("flow-run", run.id, run.name),
        ("flow", run.flow_id, context.flow.name if context.flow else ""),
        ("deployment", run.deployment_id, ""),
    ]
    return [
        RelatedResource(
            {
                "prefect.resource.id": f"prefect.{kind}.{identity}",
                "prefect.resource.role": kind,
                **({"prefect.resource.name": name} if name else {}),
            }
        )
        for kind, identity, name in found
        if identity
    ]

"""Looks after one attempt of a training while it runs: nodes that will go, room for more workers, the first step.

a worker's node will go  --+
room for another worker  --+--> request to save and leave, by the stop file of the attempt
the first step is done   -----> event `recovered`, if the attempt follows a failure
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.failures import draining_nodes, places
from cluster.room import Room, look_for_room
from cluster.stop import Restart, StopFile
from foundation_core.events import EVENTS_FILE, EventLog, read_events
from foundation_core.specs import PretrainSpec

GROW_SECONDS = 5.0
"""How long there must be room for another worker before the others are asked to begin anew with it."""
PREEMPTED = "preempted"


class AttemptWatch:
    """What happens around one attempt.

    Args:
        stop: of the attempt.
        workers: of the attempt.
        failed: the failure that it follows, as (class, time in seconds since the epoch); None if it follows none.
        room, leaving: what a cluster says; Ray's, if not said.
    """

    def __init__(
        self,
        spec: PretrainSpec,
        folder: Path,
        stop: StopFile,
        workers: int,
        failed: tuple[str, float] | None,
        room: Callable[[PretrainSpec], Room] = look_for_room,
        leaving: Callable[[], Mapping[str, int]] = draining_nodes,
    ) -> None:
        self.attempt, self.failed = stop.attempt, failed
        self._spec, self._folder, self._stop, self._workers = spec, folder, stop, workers
        self._room, self._leaving = room, leaving
        self._offset = (folder / EVENTS_FILE).stat().st_size
        self._heard: list[dict[str, Any]] = []
        self._roomy_since: float | None = None
        self.newest_step = 0

    def look(self) -> None:
        """Look once; called every second or so."""
        from ray.exceptions import RayError

        self._read()
        if self._stop.requested() or not self.newest_step:  # before its first step there is nothing new to save
            return
        with suppress(RayError):  # the head does not answer: the next look may be luckier
            self._notice_leaving_nodes()
            self._notice_room()

    def _read(self) -> None:
        for behind, event in read_events(self._folder, self._offset):
            self._offset = behind
            if event["kind"] == "rank":
                self._heard.append(event)
            if event["kind"] == "progress" and event["unit"] == "steps":
                self.newest_step = event["done"]
                self._tell_recovered()

    def _tell_recovered(self) -> None:
        if self.failed is not None:
            failure, at = self.failed
            seconds = round(time.time() - at, 3)
            EventLog(self._folder).write("recovered", failure=failure, step=self.newest_step, seconds=seconds)
            self.failed = None

    def _notice_leaving_nodes(self) -> None:
        leaving = self._leaving()
        for place in places(self._heard).values():
            if place.node in leaving and not self._stop.requested():
                deadline = leaving[place.node] / 1000
                left = f"in {deadline - time.time():.0f} s" if deadline else "soon"
                what = f"the node {place.node[:12]} of worker {place.rank} on {place.host} goes {left}"
                EventLog(self._folder).say(what)
                self._stop.request_restart(Restart(PREEMPTED, what))

    def _notice_room(self) -> None:
        if self._workers >= self._spec.workers or self._stop.requested():
            return
        more = min(self._spec.workers - self._workers, self._room(self._spec).free)
        if more < 1:
            self._roomy_since = None
            return
        self._roomy_since = self._roomy_since or time.monotonic()
        if time.monotonic() - self._roomy_since >= GROW_SECONDS:
            what = f"there is room for {self._workers + more} workers"
            EventLog(self._folder).say(f"{what}: saving, to go on with them")
            self._stop.request_restart(Restart("", what))

"""The stack of a data folder: services that `foundation up` starts and that outlive every command, until `down`.

    up      starts what does not run, waits until everything answers; the runner last
    status  alive: the process that was started, by id and start time. answers: HTTP 200
    down    the guards end what they guard; what a killed guard left is found by a mark in its environment

What was started stands in `stack/<service>.json` of the data folder. Addresses are kept for the next `up`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import psutil

from cluster.embedded import QUIET, answers, ray_access
from cluster.guard import guard_command
from cluster.services import SERVICES, Service, port_for, ray_folder, ray_token
from cluster.settings import Settings
from cluster.system_metrics import pss_bytes
from foundation_core.errors import DataError, TransientError
from foundation_core.files import read_json, write_json

START_SECONDS = 90.0
GRACE_SECONDS = 50.0
"""How long a service may take to leave: a training below it saves first."""
MARK = "FOUNDATION_STACK"
"""In the environment of a service and of all that it starts: SERVICE@DATA_FOLDER."""
INIT = 1
"""The owner of a service's guard: the machine's first process, so that no command's end ends it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class State:
    """How a service is.

    Args:
        alive: the process that was started still runs.
        answers: it says 200.
        bytes: memory of it and of everything below it (PSS).
    """

    name: str
    url: str
    alive: bool
    answers: bool
    pid: int = 0
    bytes: int = 0

    @property
    def word(self) -> str:
        """up, starting (or hung), died, or down."""
        if self.alive:
            return "up" if self.answers else "does not answer"
        return "died" if self.pid else "down"


class Stack:
    """The services of one data folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, settings.home / "stack"

    def up(self, say: Say) -> list[State]:
        """Start what does not run, and wait until everything answers.

        Raises:
            TransientError: a service ended or did not answer in time; the others run on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = list(SERVICES)
        for batch in (names[:-1], names[-1:]):
            started = [name for name in batch if not self._record(name).alive]
            for name in started:
                self._start(name)
                say(f"{name}: starting")
            for name in batch:
                self._wait_or_replace(name, is_mine=name in started)
                say(f"{name}: {self._record(name).url}")
        return self.status()

    def status(self) -> list[State]:
        """How every service is, by looking."""
        return [self._state(name) for name in SERVICES]

    def down(self, say: Say) -> None:
        """End every service, the runner first, and whatever a killed guard left."""
        for name in reversed(list(SERVICES)):
            record = self._record(name)
            if record.alive:
                say(f"{name}: stopping")
                process = psutil.Process(record.pid)
                # Ray takes half a minute over its farewell; those who had work on it were ended before it
                process.send_signal(signal.SIGQUIT if name == "ray" else signal.SIGTERM)
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(GRACE_SECONDS + 10)
            self._write(name, Record(url=record.url))
        if left := _end(self.processes()):
            say(f"ended {left} processes that a killed service had left")
        shutil.rmtree(ray_folder(self.settings), ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What a command needs to work with the services that are up; what the caller has set already stays."""
        alive = {name: record.url for name in SERVICES if (record := self._record(name)).alive}
        found: dict[str, str] = {}
        if "prefect" in alive:
            found["PREFECT_API_URL"] = f"{alive['prefect']}/api"
        if "mlflow" in alive:
            found["FOUNDATION_MLFLOW_URI"] = alive["mlflow"]
        if "ray" in alive and os.environ.get("FOUNDATION_RAY_ADDRESS", alive["ray"]) == alive["ray"]:
            # another cluster, if the caller named one, has another token
            found |= {"FOUNDATION_RAY_ADDRESS": alive["ray"], **ray_access(ray_token(self.settings))}
        return {name: value for name, value in found.items() if name not in os.environ}

    def owns(self, ray_address: str) -> bool:
        """Whether an address is that of this stack's Ray, be it up or not."""
        return bool(ray_address) and self._record("ray").url == ray_address

    def processes(self, service: str = "") -> Iterator[psutil.Process]:
        """Every process that carries the mark of a service of this stack; of any, if none is named."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK, "").endswith(f"{service}@{self.settings.home}"):
                    yield process

    def _start(self, name: str) -> None:
        service = self._service(name)
        _end(self.processes(name))  # what a killed guard left still holds the port
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **QUIET, **self.environment(), **service.environment}
        environment |= {
            "FOUNDATION_HOME": str(self.settings.home),
            "FOUNDATION_RECIPES": str(self.settings.recipes),
            "PYTHONSAFEPATH": "1",  # a folder beside the data may be called flows
            MARK: f"{name}@{self.settings.home}",
        }
        with open(self.settings.logs / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                guard_command(service.command, GRACE_SECONDS, owner=INIT),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                cwd=self.settings.home,
            )
        self._write(name, Record(service.url, process.pid, psutil.Process(process.pid).create_time()))

    def _wait_or_replace(self, name: str, *, is_mine: bool) -> None:
        """Wait for a service; one that we found on its way out is started again once it has left."""
        try:
            self._wait(name)
        except TransientError:
            if is_mine or self._record(name).alive:
                raise
            self._start(name)
            self._wait(name)

    def _wait(self, name: str) -> None:
        service, deadline = self._service(name), time.monotonic() + START_SECONDS
        while not answers(service.health, service.headers):
            if not self._record(name).alive or time.monotonic() > deadline:
                log = self.settings.logs / f"{name}.log"
                raise TransientError(f"{name} did not start", fix=f"read {log}, then run `foundation up` again")
            time.sleep(0.1)

    def _state(self, name: str) -> State:
        record = self._record(name)
        if not record.alive:  # nothing is looked up for it: a service that never ran has no token yet
            return State(name, record.url, False, False, record.pid)
        service, process = self._service(name), psutil.Process(record.pid)
        memory = sum(map(pss_bytes, [process, *process.children(recursive=True)]))
        return State(name, record.url, True, answers(service.health, service.headers), record.pid, memory)

    def _service(self, name: str) -> Service:
        port = urlsplit(self._record(name).url).port
        return SERVICES[name](self.settings, port if port else port_for(name))

    def _record(self, name: str) -> Record:
        try:
            return Record(**read_json(self.folder / f"{name}.json"))
        except (DataError, TypeError, OSError):
            return Record()

    def _write(self, name: str, record: Record) -> None:
        write_json(self.folder / f"{name}.json", asdict(record))


@dataclass(frozen=True)
class Record:
    """What was started.

    Args:
        pid: of the guard; 0 if nothing was.
        started: when that process was created; another process with its id was created at another time.
    """

    url: str = ""
    pid: int = 0
    started: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether that very process runs."""
        try:
            process = psutil.Process(self.pid)
            return self.pid > 0 and process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def _end(processes: Iterable[psutil.Process]) -> int:
    """Ask processes to leave, then make them; how many there were."""
    alive = list(processes)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, deaf = psutil.wait_procs(alive, timeout=5)
    for process in deaf:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(deaf, timeout=10)
    return len(alive)

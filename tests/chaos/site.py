"""Where chaos happens: a stack of real services over a data folder, and one run in it that is disturbed.

undisturbed run -> its model's hash
case: earlier results kept, the moment's stage removed -> run by the form -> moment -> fault -> ended as documented
      -> the same hash? every step once? one MLflow run, FINISHED? nothing left running? -> a row of the table

The stack's Ray has a second raylet beside the head's: there the workers train, and the Ray job is with the head.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from mlflow.tracking import MlflowClient

from cluster.leases import is_held
from cluster.settings import usable_cpus
from foundation_core.events import read_events
from foundation_core.store import load_result
from foundation_core.train.goodput import STEP_SECONDS, account
from tests.chaos.cases import Case
from tests.chaos.moments import STEPS, TRAINING_FIELDS, Work
from tests.support.ray_cluster import JoinedNode
from tests.support.stack import ENDED, RunningStack, until
from tests.support.workplace import copy_corpus, make_workplace

STAGES = ("ingest", "pretrain", "finetune", "evaluate", "publish")
OTHERS = " ".join(f"--pretrain.{name} {value}" for name, value in TRAINING_FIELDS.items())
FINISH_SECONDS = 1200.0
RESULTS_BYTES = 600_000_000
PLUGIN = Path(__file__).with_name("plugin")
NAN_MARK = "chaos-nan"
OF_THE_HEAD = ("ray head killed", "head's raylet killed")
"""Faults that end the whole of Ray."""
COMMANDS = ("up", "Retry")
"""What a person does for the run; to make room on a disk or to bring a file again is to mend the cause."""


class Row(NamedTuple):
    """One line of the table.

    Args:
        problems: what does not hold; none, if the run is as if nothing had happened.
        by_hand: commands that a person had to give.
        steps_lost: steps done again.
        seconds: from the fault to the first thing that was done and had not been before.
    """

    case: Case
    problems: list[str]
    by_hand: list[str]
    steps_lost: int
    seconds: float
    took: float


@dataclass
class Site:
    """A stack, the model that its recipe makes undisturbed, and what the case at work has to undo."""

    stack: RunningStack
    expected: str = ""
    node: JoinedNode | None = None
    undo: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    run_id: str = ""

    @property
    def home(self) -> Path:
        """The data folder."""
        return self.stack.place.home

    @property
    def work(self) -> Work:
        """What is done in it."""
        return Work(self.home)

    def folder(self, stage: str) -> Path | None:
        """Where a stage is at work or was."""
        return self.work.folder(stage)

    def newest_checkpoint(self) -> Path:
        """The newest one that counts."""
        folder = self.folder("pretrain")
        assert folder is not None
        return max(path.parent for path in folder.glob("checkpoints/step-*/manifest.json") if _counts(path.parent))

    def up(self) -> None:
        """Start what does not run; on a busy machine a service may need more than one start."""
        for _ in range(3):
            started = self.stack.place.run("up")
            if started.status == 0:
                return
        raise AssertionError(started.output)

    def undisturbed(self, last: str = "pipeline") -> None:
        """Run the whole pipeline once, or as far as a form goes, and remember the model."""
        self.run_id = self.stack.start(last, recipe="miniature", others=OTHERS)
        ended = self.stack.finish(self.run_id, FINISH_SECONDS)
        assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
        folder = self.folder("pretrain")
        assert folder is not None
        self.expected = load_result(folder).content

    def restore(self) -> None:
        """Train as the recipe says again, after a case that trained with another objective."""
        shutil.rmtree(self.home / "results" / "pretrain", ignore_errors=True)
        ended = self.stack.finish(self.stack.start("pretrain", recipe="miniature", others=OTHERS), FINISH_SECONDS)
        assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]

    def disturbed(self, case: Case, fault: Callable[[Site], None], others: str = "") -> Row:
        """Run one case to its end."""
        self._lay_out(case)
        began, results = time.time(), self.home / "results"
        stage = case.moment if case.moment in STAGES else "pretrain"
        form = "pretrain" if stage == "ingest" else stage
        anew = STAGES[STAGES.index(stage) : STAGES.index(form) + 1]
        for gone in anew:
            shutil.rmtree(results / gone, ignore_errors=True)
        if stage == "ingest":
            shutil.rmtree(results / "units", ignore_errors=True)
        self.undo = []
        self.run_id = self.stack.start(form, recipe="miniature", others=f"{OTHERS} {others}".strip())
        by_hand: list[str] = []
        step, at = 0, began
        try:
            self.work.wait_for(case.moment, lambda: self.stack.run(self.run_id)["state"])
            step, at = self.work.step(), time.time()
            fault(self)
            by_hand = self._end_as_documented()
            problems = self._problems(anew, began)
            if sum(word in COMMANDS for word in by_hand) > 1:
                problems.append("one command was not enough")
        except AssertionError as error:
            problems = [str(error)]
            self._give_up()
        for _, again in self.undo:
            again()
        lost, seconds = self._costs(step, at)
        if others:
            self.restore()
        return Row(case, problems, by_hand, lost, seconds, time.time() - began)

    def _lay_out(self, case: Case) -> None:
        """Give the cluster a second raylet, on which the workers will be; or take it away.

        Not while ingestion works, which would go to the cluster, and is to be tried as it is on one machine; nor where
        the head goes, which the other node's workers would outlive by a minute.
        """
        wanted = case.moment != "ingest" and case.fault not in OF_THE_HEAD
        if self.node is not None and not (wanted and self.node.is_alive):
            self.leave()
        if wanted and self.node is None:
            # Ray packs workers where most CPUs are free
            self.node = JoinedNode(self.home, self.stack.url("ray"), cpus=usable_cpus() + 1)

    def leave(self) -> None:
        """End the second raylet, if there is one."""
        if self.node is not None:
            self.node.end()
            self.node = None

    def _give_up(self) -> None:
        """Leave nothing of a case that failed to the next one."""
        if self.stack.run(self.run_id)["state"]["type"] not in ENDED:
            self.stack.ask("POST", f"/flow_runs/{self.run_id}/set_state", state={"type": "CANCELLING"}, force=True)
        with suppress(AssertionError):
            until(lambda: not self.stack.workers(), time.monotonic() + 90, "workers are left")
        self.up()

    def _end_as_documented(self) -> list[str]:
        """`foundation up` where a service died, what the message asks for, *Retry*; what had to be done."""
        done: list[str] = []
        deadline = time.monotonic() + FINISH_SECONDS
        while time.monotonic() < deadline:
            if any(row["state"] != "up" for row in self.stack.states().values()):
                self.up()
                done.append("up")
            state = self.stack.run(self.run_id)["state"]
            if state["type"] == "COMPLETED":
                return done
            if state["type"] in ("FAILED", "CRASHED", "CANCELLED"):
                assert "Retry" not in done, f"{state['name']}: {state['message']}"
                for words, again in self.undo:
                    again()
                    done.append(words)
                self.undo = []
                self.stack.retry(self.run_id)
                done.append("Retry")
            time.sleep(1)
        raise AssertionError(f"it did not end: {self.stack.run(self.run_id)['state']}")

    def _problems(self, anew: Sequence[str], began: float) -> list[str]:
        """What is not as if nothing had happened, where some stages were done anew."""
        folder, found = self.folder("pretrain"), []
        assert folder is not None
        if (content := load_result(folder).content) != self.expected:
            found.append(f"another model: {content[:12]} instead of {self.expected[:12]}")
        found += sample_problems(folder)
        found += [word for stage in STAGES if (word := self._tracking_problem(stage, began, stage in anew))]
        for words, holds in {
            "workers are left": lambda: not self.stack.workers(),
            "a job is left": lambda: not self.stack.place.processes("-m cluster.job /"),
            "MLflow has open runs": lambda: not self.stack.open_runs(folder),
            "zombies": lambda: not _zombies(self.home),
            "a lease is held": lambda: not is_held(folder),
        }.items():
            try:
                until(holds, time.monotonic() + 60, words)
            except AssertionError:
                found.append(words)
        return found

    def _tracking_problem(self, stage: str, began: float, is_new: bool) -> str:
        client = MlflowClient(tracking_uri=self.stack.url("mlflow"))
        experiment = client.get_experiment_by_name("foundation")
        runs = client.search_runs([experiment.experiment_id], f"tags.`foundation.stage` = '{stage}'")
        mine = [run.info.status for run in runs if run.info.start_time >= began * 1000]
        return "" if mine == ["FINISHED"] * is_new else f"MLflow runs of {stage}: {mine}"

    def _costs(self, step: int, at: float) -> tuple[int, float]:
        folder = self.folder("pretrain")
        if folder is None:
            return 0, 0.0
        events = [event for _, event in read_events(folder)]
        return account(events).repeated_steps, seconds_to_recover(events, step, at)


def seconds_to_recover(events: Sequence[Mapping[str, Any]], step: int, at: float) -> float:
    """From a fault at a step to the first step that had not been done; 0 if the training never began anew."""
    furthest, began_anew = step, False
    for event in events:
        if event["time"] <= at:
            continue
        if event["kind"] in ("start", "attempt"):
            began_anew = True
        elif _is_step(event) and not began_anew:
            furthest = max(furthest, event["step"])
        elif _is_step(event) and event["step"] > furthest:
            return float(event["time"] - at)
    return 0.0


def sample_problems(folder: Path) -> list[str]:
    """What is wrong with the samples that a training saw: none twice, none never.

    A batch is a function of its step: every step counted once, and one done twice the same both times.
    """
    seen: dict[int, set[tuple[float, float]]] = {}
    for _, event in read_events(folder):
        if _is_step(event):
            values = event["values"]
            seen.setdefault(event["step"], set()).add((values["train/loss_nats"], values["train/tokens"]))
    found = [] if sorted(seen) == list(range(1, STEPS + 1)) else [f"{len(seen)} steps instead of {STEPS}"]
    return found + [f"step {step} was another one the second time" for step, each in seen.items() if len(each) > 1][:3]


def _is_step(event: Mapping[str, Any]) -> bool:
    return event["kind"] == "metrics" and STEP_SECONDS in event["values"]


def _counts(folder: Path) -> bool:
    return folder.suffix == ""


def _zombies(home: Path) -> list[int]:
    """Processes that ended, whose parent works for the data folder and does not know."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                parent = process.parent()
                if parent is not None and parent.environ().get("FOUNDATION_HOME") == str(home):
                    found.append(process.pid)
    return found


def left_over(home: Path) -> Counter[str]:
    """Processes that still work for a data folder, by name."""
    found: Counter[str] = Counter()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("FOUNDATION_HOME") == str(home):
                found[process.name()] += 1
    return found


@contextmanager
def running_site() -> Iterator[Site]:
    """A stack of its own in a temporary folder for the block; its results lie on a disk that can be filled, as root."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    (folder / "corpus").mkdir()
    place = make_workplace(folder, copy_corpus(folder / "corpus"))
    results = place.home / "results"
    results.mkdir()
    small = os.getuid() == 0 and _mount(results)
    before = {name: os.environ.get(name) for name in ("FOUNDATION_RECIPES", "PYTHONPATH")}
    os.environ["FOUNDATION_RECIPES"] = str(place.recipe.parent)
    os.environ["PYTHONPATH"] = str(PLUGIN)
    site = Site(RunningStack(place))
    try:
        site.up()
        yield site
    finally:
        site.leave()
        place.run("down")
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        if small:
            subprocess.run(["umount", "--lazy", str(results)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={RESULTS_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0

"""Nodes leave and join while a training runs: it goes on with the workers there are, as if nothing had happened."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foundation_core.events import read_events
from foundation_core.store import load_result
from tests.support.ray_cluster import ClusterPlace, TwoNodes, running_two_nodes
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = 120
FIELDS = (
    *("--pretrain.steps", str(STEPS), "--pretrain.workers", "[1, 2]", "--pretrain.precision", "float32"),
    *("--pretrain.batch_rows", "32", "--pretrain.checkpoint_every_steps", "10"),
    *("--pretrain.validate_every_steps", "80"),
)


@dataclass(frozen=True)
class Training:
    """What a training said."""

    folder: Path

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Its events of a kind."""
        return [event for _, event in read_events(self.folder) if event["kind"] == kind]

    def by_step(self, name: str) -> dict[int, float]:
        """A figure by the step; of steps that were done again, the last."""
        return {event["step"]: event["values"][name] for event in self.of("metrics") if name in event["values"]}

    def wait(self, holds: Callable[[], bool], words: str) -> None:
        """Return once something holds."""
        deadline = time.monotonic() + 600
        while not holds():
            assert time.monotonic() < deadline, words
            time.sleep(0.1)

    def attempts(self) -> list[int]:
        """The workers of each attempt."""
        return [event["workers"] for event in self.of("attempt")]

    def first_steps(self) -> list[int]:
        """The first step of each attempt."""
        firsts: list[int] = []
        for _, event in read_events(self.folder):
            if event["kind"] == "attempt":
                waiting = True
            elif event["kind"] == "progress" and event["unit"] == "steps" and waiting:
                waiting = False
                firsts.append(event["done"])
        return firsts

    def wait_for_attempt(self, number: int, steps: int) -> None:
        """Return once an attempt has done some steps."""

        def done() -> bool:
            firsts = self.first_steps()
            newest = max((event["done"] for event in self.of("progress") if event["unit"] == "steps"), default=0)
            return len(firsts) > number and newest >= firsts[number] + steps

        self.wait(done, f"attempt {number} did not begin: {self.of('failure')}")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    """Two nodes of one CPU each, of which the second may be lost."""
    with running_two_nodes(tmp_path / "nodes") as nodes:
        yield nodes


@pytest.fixture
def place(nodes: TwoNodes, workplace: Workplace) -> ClusterPlace:
    """An empty data folder whose commands use them."""
    return nodes.place(workplace)


def _folder(place: Workplace) -> Path:
    deadline = time.monotonic() + 600
    while not (found := list((place.home / "results" / "pretrain").glob("*/job.json"))):
        assert time.monotonic() < deadline, "the training did not begin"
        time.sleep(0.1)
    return found[0].parent


def test_a_training_with_nodes_that_leave_and_join_equals_an_undisturbed_one(
    nodes: TwoNodes, place: ClusterPlace
) -> None:
    ended = place.start("pretrain", str(place.recipe), *FIELDS)
    output, _ = ended.communicate(timeout=900)
    assert ended.returncode == 0, output
    folder = _folder(place)
    undisturbed = Training(folder)
    losses, tokens = undisturbed.by_step("train/loss_nats"), undisturbed.by_step("train/tokens")
    assert undisturbed.attempts() == [2]
    shutil.rmtree(folder)

    command = place.start("pretrain", str(place.recipe), *FIELDS)
    training = Training(_folder(place))
    training.wait_for_attempt(0, steps=15)
    nodes.kill_node()
    training.wait(lambda: training.attempts() == [2, 1], f"it waits for the node: {training.of('failure')}")
    nodes.add_node()
    training.wait_for_attempt(2, steps=2)
    nodes.ask_node_to_leave()
    output, _ = command.communicate(timeout=900)
    assert command.returncode == 0, output

    assert training.attempts() == [2, 1, 2, 1]
    failures = [(event["failure"], event["attempt"]) for event in training.of("failure")]
    assert failures == [("lost_node", 0), ("preempted", 2)], "a node that joins is no failure"
    assert [event["failure"] for event in training.of("recovered")] == ["lost_node", "preempted"]
    assert load_result(training.folder).summary["steps"] == STEPS
    assert training.by_step("train/tokens") == tokens, "a sample was learnt from twice or never"
    found = training.by_step("train/loss_nats")
    assert found.keys() == losses.keys() == set(range(1, STEPS + 1))
    worst = max(abs(found[step] - losses[step]) / losses[step] for step in losses)
    assert worst < 1e-5, worst
    lost = training.first_steps()
    saved = [*range(0, STEPS, 10)]
    assert lost[1] - 1 in saved, "after a loss it goes on from the last checkpoint"
    for message in ("lost_node", "there is room for 2 workers", "recovered from preempted"):
        assert message in output

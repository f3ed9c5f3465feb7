"""`foundation stop` from beside: the stage saves, its command ends as stopped, and the same command goes on."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from foundation_core.events import read_events
from tests.support.workplace import Workplace

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

LONG = ("--pretrain.steps", "4000", "--pretrain.checkpoint_every_steps", "2000")


def test_a_training_is_stopped_from_beside_and_says_what_it_saved(workplace: Workplace) -> None:
    command = workplace.start("pretrain", str(workplace.recipe), *LONG)
    folder = _wait_for_step(workplace, 3)
    assert _states(workplace)["pretrain"] == "running"
    stopped = workplace.run("stop", "pretrain")
    assert stopped.status == 0, stopped.output
    said = re.search(r"stopped: training stopped after step (\d+) of 4000, saved", stopped.output)
    assert said, stopped.output
    output, _ = command.communicate(timeout=120)
    assert command.returncode == 130, output
    assert [path.name for path in (folder / "checkpoints").glob("*") if said[1] in path.name]
    assert _states(workplace) == {"ingest": "done", "pretrain": "stopped", "": "stopped"}
    log = workplace.run("logs", "--follow", folder.name.rpartition("-")[2][:6])
    assert log.output.splitlines()[-1].endswith(f"stopped: training stopped after step {said[1]} of 4000, saved")
    assert workplace.run("stop", "pretrain").status == 1
    assert workplace.processes() == []


def _states(place: Workplace) -> dict[str, str]:
    return {row["stage"]: row["state"] for row in json.loads(place.run("runs", "--json").output)}


def _wait_for_step(place: Workplace, step: int) -> Path:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for folder in (place.home / "results" / "pretrain").glob("*"):
            if any(e["kind"] == "metrics" and (e["step"] or 0) >= step for _, e in read_events(folder)):
                return folder
        time.sleep(0.05)
    raise AssertionError("the training did not begin")

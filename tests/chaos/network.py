"""The case of a network that is cut for half a minute between two nodes, each with a worker.

Ray calls no node dead for so long, and no process ends: the ranks wait in a collective call until their watchdogs end
them. Training goes on from the last checkpoint when both nodes can be reached again.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from foundation_core.events import read_events
from foundation_core.store import load_result
from foundation_core.train.goodput import account
from tests.chaos.cases import Case
from tests.chaos.moments import TRAINING_FIELDS, Work
from tests.chaos.site import Row, sample_problems, seconds_to_recover
from tests.support.namespaces import running_separated_nodes
from tests.support.workplace import Workplace

CUT_SECONDS, HANG_SECONDS = 30.0, 10.0


def cut_network(recipe: Path, expected: str, moment: str) -> Row:
    """Train on the two nodes, cut the network between them at a moment, and look at what becomes of it.

    Args:
        expected: content of what the recipe's training makes undisturbed.
    """
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="chaos-network-") as temporary:
        home = Path(temporary) / "home"
        home.mkdir()
        with running_separated_nodes(Path(temporary)) as nodes:
            place = nodes.place(Workplace(home, recipe))
            training = {**TRAINING_FIELDS, "watch.hang_seconds": HANG_SECONDS}
            fields = [word for name, value in training.items() for word in (f"--pretrain.{name}", str(value))]
            command, work = place.start("pretrain", str(recipe), *fields), Work(home)
            work.wait_for(moment, command.poll)
            step, at = work.step(), time.time()
            nodes.cut()
            time.sleep(CUT_SECONDS)
            nodes.mend()
            output, _ = command.communicate(timeout=400)
            by_hand, problems = [], []
            if command.returncode != 0:
                by_hand.append("the same command")
                again = place.run("pretrain", str(recipe), *fields)
                output = again.output
                problems = [] if again.status == 0 else [output[-400:]]
        (folder,) = (home / "results" / "pretrain").glob("*")
        events = [event for _, event in read_events(folder)]
        if not problems:
            problems = sample_problems(folder)
            if load_result(folder).content != expected:
                problems.append("another model")
        if not any(event["kind"] == "failure" and event["failure"] == "hang" for event in events):
            problems.append("no hang was told")
    lost, seconds = account(events).repeated_steps, seconds_to_recover(events, step, at)
    return Row(Case("network cut", moment), problems, by_hand, lost, seconds, time.time() - began)

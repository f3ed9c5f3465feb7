"""Cases with a stage of their own: they need another cluster, or a second undisturbed run to be compared with.

node killed         two raylets with a worker each, the second is killed and another one joins
network cut         two raylets in namespaces of their own, the network between them is cut for half a minute
document of NaN     a document that no step survives; compared with a run that never had it
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from foundation_core.events import read_events
from foundation_core.store import load_result
from foundation_core.train.goodput import account
from tests.chaos.cases import Case
from tests.chaos.moments import TRAINING_FIELDS, Work
from tests.chaos.network import cut_network
from tests.chaos.site import (
    FINISH_SECONDS,
    OTHERS,
    Row,
    Site,
    sample_problems,
    seconds_to_recover,
)
from tests.support.ray_cluster import running_two_nodes
from tests.support.workplace import Workplace

BAD_OBJECTIVE = "--pretrain.objective next_token_with_a_bad_document"
BAD_TOKENS_FILE, BAD_TOKENS = "chaos-document", 8


def kill_a_node(site: Site, moment: str) -> Row:
    """Ingest and train on two nodes, kill the second one's raylet at a moment of it, let another join."""
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="chaos-node-") as temporary:
        home = Path(temporary) / "home"
        home.mkdir()
        with running_two_nodes(Path(temporary) / "nodes") as nodes:
            place = nodes.place(Workplace(home, site.stack.place.recipe))
            fields = [word for name, value in TRAINING_FIELDS.items() for word in (f"--pretrain.{name}", str(value))]
            command, work = place.start("pretrain", str(place.recipe), *fields), Work(home)
            work.wait_for(moment, command.poll)
            step, at = work.step(), time.time()
            nodes.kill_node()
            nodes.add_node()
            try:
                output, _ = command.communicate(timeout=400)
            finally:
                command.kill()
            by_hand, status = [], command.returncode
            if status != 0:
                by_hand.append("the same command")
                again = place.run("pretrain", str(place.recipe), *fields)
                output, status = again.output, again.status
        (folder,) = (home / "results" / "pretrain").glob("*")
        events = [event for _, event in read_events(folder)]
        problems = sample_problems(folder) if status == 0 else [output[-400:]]
        if not problems and load_result(folder).content != site.expected:
            problems.append("another model")
        told = [event["failure"] for event in events if event["kind"] == "failure"]
        if moment != "ingest" and "lost_node" not in told:  # a unit of ingestion is done again without a word
            problems.append(f"no lost node was told: {told}")
    lost, seconds = account(events).repeated_steps, seconds_to_recover(events, step, at)
    return Row(Case("node killed", moment), problems, by_hand, lost, seconds, time.time() - began)


def learn_with_a_bad_document(site: Site, moment: str) -> Row:
    """Train with a document that makes each of its steps NaN, and then by a recipe that names it."""
    began, mark = time.time(), site.home / BAD_TOKENS_FILE
    name, runs = _a_document(site)
    mark.write_text(json.dumps(runs))
    try:
        found = _trained(site, BAD_OBJECTIVE)
        events = [event for _, event in read_events(found)]
        result = load_result(found)
        named = load_result(_trained(site, f"{BAD_OBJECTIVE} --pretrain.quarantined {shlex.quote(json.dumps([name]))}"))
    finally:
        mark.unlink()
        site.restore()
    problems = [] if result.summary["quarantined"] == [name] else [f"left out: {result.summary['quarantined']}"]
    if result.content != named.content:
        problems.append("another model than that of a run that never had the document")
    if result.content == site.expected:
        problems.append("the document changed nothing: the case says nothing")
    at = next((event["time"] for event in events if event["kind"] == "failure"), began)
    step = max((e["step"] for e in events if e["kind"] == "metrics" and e["time"] <= at), default=0)
    lost, seconds = account(events).repeated_steps, seconds_to_recover(events, step, at)
    return Row(Case("document of NaN", moment), problems, [], lost, seconds, time.time() - began)


def _a_document(site: Site) -> tuple[str, list[list[int]]]:
    """The longest training document, and every run of some of its tokens that no other one has.

    All of its runs, since a single one may lie across two rows, and the longest, since a short one may not be read.
    """
    folder = site.folder("ingest")
    assert folder is not None
    documents: dict[str, list[int]] = {}
    for shard in sorted(folder.glob("tokens/train/*.arrow")):
        with pa.memory_map(str(shard)) as source:
            table = pa.ipc.open_file(source).read_all()
        documents |= zip(table["document"].to_pylist(), table["tokens"].to_pylist(), strict=True)
    name = max(documents, key=lambda name: len(documents[name]))
    own = _runs(documents.pop(name))
    return name, [list(run) for run in sorted(own - set().union(*map(_runs, documents.values())))]


def _runs(tokens: list[int]) -> set[tuple[int, ...]]:
    return {tuple(tokens[first : first + BAD_TOKENS]) for first in range(len(tokens) - BAD_TOKENS + 1)}


def _trained(site: Site, others: str) -> Path:
    """The folder of a training by the form, done anew."""
    shutil.rmtree(site.home / "results" / "pretrain", ignore_errors=True)
    ended = site.stack.finish(
        site.stack.start("pretrain", recipe="miniature", others=f"{OTHERS} {others}"), FINISH_SECONDS
    )
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    folder = site.folder("pretrain")
    assert folder is not None
    return folder


APART: Mapping[str, Callable[[Site, str], Row]] = {
    "node killed": kill_a_node,
    "network cut": lambda site, moment: cut_network(site.stack.place.recipe, site.expected, moment),
    "document of NaN": learn_with_a_bad_document,
}
"""What takes the place of a fault that is done to the site's own run, at a moment of it."""

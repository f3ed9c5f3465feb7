"""The whole way of an ingestion on a Ray cluster of two nodes: the bytes of one machine, also when a node dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from foundation_core.events import read_events
from foundation_core.store import Result, load_result
from tests.support.ingestion import finished_units
from tests.support.ray_cluster import TwoNodes, running_two_nodes
from tests.support.workplace import Workplace, make_workplace

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(1200)]

UNITS = ("--ingest.unit_bytes", "20000")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, miniature_corpus: Path) -> Result:
    """What this machine makes of the corpus without a cluster."""
    place = make_workplace(tmp_path_factory.mktemp("alone"), miniature_corpus)
    ended = place.run("ingest", str(place.recipe))
    assert ended.status == 0, ended.output
    return _result(place)


def _folder(place: Workplace) -> Path:
    (folder,) = (place.home / "results" / "ingest").glob("*")
    return folder


def _result(place: Workplace) -> Result:
    return load_result(_folder(place))


def test_a_cluster_of_several_nodes_gets_the_ingestion_and_makes_the_same_bytes(
    alone: Result, two_nodes: TwoNodes, workplace: Workplace, miniature_corpus: Path
) -> None:
    """The source is named by a path from the folder of the command, in which no Ray job works."""
    place = two_nodes.place(workplace)
    source = os.path.relpath(miniature_corpus, place.home)
    ended = place.run("ingest", str(place.recipe), *UNITS, "--ingest.source.path", source)
    assert ended.status == 0, ended.output
    result = _result(place)
    assert result.ids["ray_job"] in {job["submission_id"] for job in two_nodes.jobs()}
    assert "ray_job" not in alone.ids, "the negative control"
    assert (result.content, result.key) == (alone.content, alone.key)
    assert result.summary["units"]["read"]["done"] > 10


def test_a_killed_node_costs_the_units_in_hand(alone: Result, tmp_path: Path, workplace: Workplace) -> None:
    with running_two_nodes(tmp_path / "nodes") as nodes:
        place = nodes.place(workplace)
        command = place.start("ingest", str(place.recipe), "--ingest.unit_bytes", "4096")
        results, deadline = place.home / "results", time.monotonic() + 300
        while len(finished_units(results, "read")) < 5:
            assert command.poll() is None, command.communicate()[0]
            assert time.monotonic() < deadline, "no unit was finished"
            time.sleep(0.005)
        nodes.kill_node()
        before = finished_units(results)
        output, _ = command.communicate(timeout=400)
    assert command.returncode == 0, output
    after = finished_units(results)
    assert {path: after[path] for path in before} == before, "finished units were done again"
    assert _result(place).content == alone.content
    said = [event["text"] for _, event in read_events(_folder(place)) if event["kind"] == "say"]
    assert any("what it had in hand is done again" in text for text in said), "the node had nothing in hand"

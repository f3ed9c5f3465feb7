"""A real Ray cluster of two nodes: whole pipelines sent to it as jobs, ranks on both nodes, refusals with numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.embedded import free_port
from foundation_core.events import read_events
from foundation_core.store import load_result
from tests.support.ray_cluster import ClusterPlace, TwoNodes, running_two_nodes
from tests.support.workplace import Ended, Workplace, hear_interrupts

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ("ingest", "pretrain", "finetune", "evaluate", "publish")
LONG = ("--pretrain.steps", "4000", "--pretrain.checkpoint_every_steps", "2000")


@pytest.fixture
def place(two_nodes: TwoNodes, workplace: Workplace) -> ClusterPlace:
    """An empty data folder whose commands use the cluster of two nodes."""
    return two_nodes.place(workplace)


def _jobs(nodes: TwoNodes) -> set[str]:
    return {str(job["submission_id"]) for job in nodes.jobs()}


def _ranks(folder: Path) -> dict[int, str]:
    """The node of each rank, by the latest attempt's own words."""
    return {event["rank"]: event["node"] for _, event in read_events(folder) if event["kind"] == "rank"}


def _only(place: Workplace, stage: str) -> Path:
    (folder,) = (place.home / "results" / stage).glob("*")
    return folder


def _assert_refused(ended: Ended, *words: str) -> None:
    assert ended.status == 2, ended.output
    assert "Traceback" not in ended.output
    for word in words:
        assert word in ended.output


def test_a_submitted_recipe_becomes_a_registered_model_on_the_cluster(two_nodes: TwoNodes, place: ClusterPlace) -> None:
    ended = place.run("submit", str(place.recipe), "--pretrain.workers", "2", "--pretrain.steps", "8")
    assert ended.status == 0, ended.output
    results = {stage: load_result(_only(place, stage)) for stage in STAGES}
    assert results["pretrain"].summary["steps"] == 8
    assert all(result.ids["mlflow_run"] for result in results.values())
    assert {results["pretrain"].ids["ray_job"], results["finetune"].ids["ray_job"]} <= _jobs(two_nodes)
    assert len(set(_ranks(_only(place, "pretrain")).values())) == 2
    assert "pretrain: 8 of 8 steps" in ended.output
    assert place.processes() == []
    rows = json.loads(place.run("runs", "--json").output)
    assert {row["stage"]: row["state"] for row in rows if row["kind"] == "stage"} == dict.fromkeys(STAGES, "done")
    again = place.run("run", str(place.recipe), "--pretrain.workers", "2", "--pretrain.steps", "8")
    assert "nothing to do" in again.output, "a pipeline by hand and one as a job have different keys"


def test_rays_own_command_runs_a_recipe_and_stopping_the_job_saves(two_nodes: TwoNodes, place: ClusterPlace) -> None:
    root, job_id = Path(__file__).parents[2], "by-hand"
    variables = {"FOUNDATION_HOME": str(place.home)}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", two_nodes.address),
        *("--submission-id", job_id, "--no-wait", "--runtime-env-json", json.dumps({"env_vars": variables})),
        *("--working-dir", str(root), "--", sys.executable, "-m", "cluster.job", "recipes/quickstart.yaml"),
        *("--ingest.source.kind", "folder", "--ingest.source.path", str(_corpus(place)), *LONG),
        *("--pretrain.workers", "1", "--ingest.tokenizer.vocabulary", "512", "--pretrain.batch_rows", "2"),
    ]
    done = subprocess.run(command, env=place.environment, capture_output=True, text=True, cwd=place.home)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = _wait_for_step(place, 3)
    stop = [sys.executable, "-m", "ray.scripts.scripts", "job", "stop", "--address", two_nodes.address, job_id]
    done = subprocess.run(stop, env=place.environment, capture_output=True, text=True, cwd=place.home)
    assert done.returncode == 0, done.stdout + done.stderr
    _assert_saved(folder)


def test_a_job_that_nobody_waits_for_is_seen_and_stopped_by_its_name(two_nodes: TwoNodes, place: ClusterPlace) -> None:
    """The recipe alone was sent: this project is installed where the job runs."""
    sent = place.run("submit", str(place.recipe), "--no-wait", "--installed", "--pretrain.workers", "1", *LONG)
    assert sent.status == 0, sent.output
    job_id = sent.output.split()[0]
    job = next(job for job in two_nodes.jobs() if job["submission_id"] == job_id)
    assert job["status"] in ("PENDING", "RUNNING")
    folder = _wait_for_step(place, 3)
    assert "pretrain" in place.run("logs", job_id).output
    stopped = place.run("stop", job_id)
    assert stopped.status == 0, stopped.output
    _assert_saved(folder)
    assert place.run("stop", job_id).status == 1, "it does not run any more"


@pytest.mark.parametrize(("answer", "goes_on"), [("n", True), ("y", False)])
def test_ctrl_c_asks_whether_the_job_should_stop_too(answer: str, goes_on: bool, place: ClusterPlace) -> None:
    ours, theirs = os.openpty()
    command = [str(Path(sys.executable).with_name("foundation")), "submit", str(place.recipe), *LONG]
    process = subprocess.Popen(
        [*command, "--pretrain.workers", "1"], env=place.environment, cwd=place.home.parent,
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    assert process.stdout is not None
    job_id = process.stdout.readline().split()[0]
    folder = _wait_for_step(place, 3)
    os.write(ours, f"{answer}\n".encode())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stop the job too? [y/N]" in output
    if goes_on:
        assert f"{job_id} goes on" in output
        assert place.run("stop", job_id).status == 0, "it did not go on"
    _assert_saved(folder)


def _assert_saved(folder: Path) -> None:
    *_, (_, last) = read_events(folder)
    assert (last["kind"], last["status"]) == ("end", "stopped"), last
    assert list((folder / "checkpoints").glob("*")), "the trainer saved before it left"


def _corpus(place: Workplace) -> Path:
    import yaml

    return Path(yaml.safe_load(place.recipe.read_text())["ingest"]["source"]["path"])


def test_what_cannot_be_is_refused_and_nothing_is_submitted(two_nodes: TwoNodes, place: ClusterPlace) -> None:
    before, recipe = _jobs(two_nodes), str(place.recipe)
    nobody = f"http://127.0.0.1:{free_port()}"
    wrong = ClusterPlace(place.home, place.recipe, {**place.variables, "RAY_AUTH_TOKEN": "0" * 64})
    none = ClusterPlace(
        place.home, place.recipe, {"FOUNDATION_RAY_ADDRESS": two_nodes.address, "HOME": str(place.home)}
    )
    _assert_refused(place.run("submit", recipe, "--pretrain.nope", "3"), "pretrain.nope: unknown field")
    _assert_refused(place.run("submit", recipe, "--address", nobody), f"no Ray cluster answers at {nobody}")
    _assert_refused(place.run("submit", recipe, "--address", "nowhere"), "'nowhere' is no address")
    _assert_refused(place.run("submit", recipe, "--pretrain.workers", "9"), "9 workers", "there are 2 CPUs in all")
    _assert_refused(wrong.run("submit", recipe), "refused the token in RAY_AUTH_TOKEN")
    _assert_refused(none.run("submit", recipe), "refused a request without a token")
    _assert_refused(place.run("pretrain", recipe, "--pretrain.workers", "9"), "there are 2 CPUs in all")
    assert _jobs(two_nodes) == before
    assert list(place.home.iterdir()) == []


def test_the_ranks_of_a_training_are_on_both_nodes(place: ClusterPlace) -> None:
    ended = place.run("pretrain", str(place.recipe))
    assert ended.status == 0, ended.output
    ranks = _ranks(_only(place, "pretrain"))
    assert set(ranks) == {0, 1}
    assert ranks[0] != ranks[1]


def test_a_training_waits_for_its_turn_and_says_so(place: ClusterPlace) -> None:
    first = place.start("pretrain", str(place.recipe), *LONG)
    _wait_for_step(place, 3)
    busy = _only(place, "pretrain")
    second = place.start("pretrain", str(place.recipe), "--pretrain.seed", "9")
    deadline = time.monotonic() + 120
    while not any("waiting for 2 CPUs: 0 of 2 are free" in log.read_text() for log in _logs(place)):
        assert time.monotonic() < deadline, "it did not say that it waits"
        time.sleep(0.2)
    assert place.run("stop", busy.name.rpartition("-")[2]).status == 0
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0, output
    first.communicate(timeout=60)


def test_a_training_goes_on_after_it_lost_a_node(tmp_path: Path, workplace: Workplace) -> None:
    """With one node less the workers do not fit; with another in its place the same command goes on."""
    with running_two_nodes(tmp_path / "nodes") as nodes:
        place = nodes.place(workplace)
        steps = ("--pretrain.steps", "300", "--pretrain.checkpoint_every_steps", "10")
        command = place.start("pretrain", str(place.recipe), *steps)
        folder = _wait_for_step(place, 25)
        nodes.kill_node()
        output, _ = command.communicate(timeout=300)
        assert command.returncode in (1, 2), output
        assert "Traceback" not in output
        assert not (folder / "result.json").exists()
        nodes.add_node()
        again = place.run("pretrain", str(place.recipe), *steps)
        assert again.status == 0, again.output
    steps_seen = [event["step"] for _, event in read_events(folder) if _is_loss(event)]
    assert steps_seen.count(1) == 1, "it began anew instead of going on"
    assert load_result(folder).summary["steps"] == 300


def _logs(place: Workplace) -> list[Path]:
    return list((place.home / "results" / "pretrain").glob("*/events.jsonl"))


def _is_loss(event: dict[str, Any]) -> bool:
    return event["kind"] == "metrics" and "train/loss_nats" in event["values"]


def _wait_for_step(place: Workplace, step: int) -> Path:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        for folder in (place.home / "results" / "pretrain").glob("*"):
            if any(_is_loss(event) and event["step"] >= step for _, event in read_events(folder)):
                return folder
        time.sleep(0.05)
    raise AssertionError("the training did not begin")

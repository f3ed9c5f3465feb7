"""A sweep through all real parts: three values, one of which diverges; the good two again, as a sweep of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from foundation_core.store import Store
from tests.support.workplace import Ended, Workplace, make_workplace

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]

GOOD = ("0.002", "0.004")
DIVERGES = "1e+30"
QUICK = ("--pretrain.engine", "torch", "--pretrain.workers", "1", "--pretrain.precision", "float32")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, miniature_corpus: Path) -> tuple[Workplace, Ended]:
    """A workplace in which a sweep ran, and how that ended."""
    place = make_workplace(tmp_path_factory.mktemp("swept"), miniature_corpus)
    return place, place.run("sweep", str(place.recipe), "--values", GOOD[0], DIVERGES, GOOD[1], *QUICK)


def _runs(place: Workplace, sweep: str) -> dict[str, Run]:
    """The MLflow runs of a sweep, by their names."""
    client = MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("foundation").experiment_id
    runs = client.search_runs([experiment], f"tags.`foundation.sweep` = '{sweep}'")
    named = {
        f"{run.data.tags.get('foundation.sweep_point', '')} {run.data.tags['foundation.stage']}": run for run in runs
    }
    assert len(named) == len(runs)
    return named


def _id(ended: Ended) -> str:
    (line,) = [line for line in ended.output.splitlines() if line.startswith("runs ")]
    return line.split()[4]


def test_a_value_that_diverges_is_a_row_and_the_others_go_on(swept: tuple[Workplace, Ended]) -> None:
    place, ended = swept
    assert ended.status == 0, ended.output
    assert "Traceback" not in ended.output
    rows = [line.strip("│ ").split("│") for line in ended.output.splitlines() if line.startswith("│")]
    assert rows[-1][0].strip() == DIVERGES
    assert "failed: " in rows[-1][-1]
    assert {row[1].split()[1] for row in rows[:-1]} == {"bits/byte"}
    found = {row[0].strip(): float(row[1].split()[0]) for row in rows[:-1]}
    assert sorted(found) == sorted(GOOD)
    assert list(found.values()) == sorted(found.values())
    trunks = Store(place.home / "results").history("pretrain")
    assert sorted(found.values()) == sorted(round(t.summary["best_validation"]["bits_per_byte"], 4) for t in trunks)
    best = f"{' '.join(QUICK)} --pretrain.optimizer.lr {min(found, key=found.__getitem__)}"
    assert f"winner    foundation run {place.recipe} {best}" in ended.output
    assert place.processes() == []


def test_mlflow_shows_the_points_below_one_run_each_with_its_value_and_its_score(
    swept: tuple[Workplace, Ended],
) -> None:
    place, ended = swept
    runs = _runs(place, _id(ended))
    parent = runs.pop(" sweep")
    assert (parent.info.status, parent.data.params["over"]) == ("FINISHED", "pretrain.optimizer.lr")
    for value in (*GOOD, DIVERGES):
        point, stage = runs[f"lr={value} pipeline"], runs[f"lr={value} pretrain"]
        assert point.info.run_name == f"lr={value}"
        assert float(point.data.params["pretrain.optimizer.lr"]) == float(value)
        assert point.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert stage.data.tags["mlflow.parentRunId"] == point.info.run_id
        assert point.info.status == stage.info.status == ("FAILED" if value == DIVERGES else "FINISHED")
    for value in GOOD:
        point, stage = runs[f"lr={value} pipeline"], runs[f"lr={value} pretrain"]
        assert point.data.tags["foundation.pretrain.mlflow_run"] == stage.info.run_id
        best = min(
            metric.value
            for metric in MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}").get_metric_history(
                stage.info.run_id, "validation/bits_per_byte"
            )
        )
        assert point.data.metrics["validation/bits_per_byte"] == pytest.approx(best)


def test_points_that_are_known_are_reused_and_a_second_time_nothing_is_done(swept: tuple[Workplace, Ended]) -> None:
    place, _ = swept
    results = {path: path.stat().st_mtime_ns for path in place.home.glob("results/**/result.json")}
    once = place.run("sweep", str(place.recipe), "--values", *GOOD, *QUICK)
    assert once.status == 0, once.output
    assert once.output.count("pretrain  done before, reused") == 2
    assert {path: path.stat().st_mtime_ns for path in place.home.glob("results/**/result.json")} == results
    runs = _runs(place, _id(once))
    assert sorted(runs) == [" sweep", *sorted(f"lr={value} pipeline" for value in GOOD)]
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*")}
    again = place.run("sweep", str(place.recipe), "--values", "4e-3", "2e-3", *QUICK, "--finetune.steps", "9")
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    assert _id(again) == _id(once)
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("*")} == before

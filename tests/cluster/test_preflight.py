"""What cannot work is refused before anything starts, with the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import preflight as preflight_module
from cluster.preflight import preflight
from cluster.settings import Settings, usable_cpus
from foundation_core.errors import ConfigError, SetupError
from foundation_core.recipe import parse_recipe


def _check(home: Path, settings: dict[str, str] | None = None, **stages: Any) -> None:
    preflight(parse_recipe({"pretrain": {"workers": 1}, **stages}), Settings(home, **(settings or {})))


def test_what_can_work_is_let_through_and_makes_the_data_folder(tmp_path: Path) -> None:
    _check(tmp_path / "deep" / "home")
    assert (tmp_path / "deep" / "home").is_dir()


def test_every_unknown_name_is_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _check(
            tmp_path,
            ingest={"source": {"kind": "web"}, "filters": [{"measure": "beauty", "at_least": 1}]},
            pretrain={"workers": 1, "objective": "guess", "model": {"family": "parrot"}},
            finetune={"task": "nothing"},
        )
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    starts = [
        "no source is called 'web'; allowed: audio_folder,",
        "no measure is called 'beauty'; allowed: alphabetic_word_fraction, alphanumeric_fraction,",
        "no family is called 'parrot'; allowed: captioner, decoder,",
        "no objective is called 'guess'; allowed: balanced_next_token, captioning,",
        "no task is called 'nothing'; allowed: ",
    ]
    assert len(lines) == len(starts)
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


@pytest.mark.parametrize(("workers", "threads"), [(usable_cpus() + 1, 1), (1, usable_cpus() + 1)])
def test_more_workers_than_cpus_are_refused_with_the_numbers(tmp_path: Path, workers: int, threads: int) -> None:
    with pytest.raises(SetupError) as caught:
        _check(tmp_path, pretrain={"workers": workers, "threads_per_worker": threads})
    assert f"{workers} workers of {threads} CPUs, and there are {usable_cpus()} CPUs" in caught.value.found
    assert f"up to {usable_cpus()}" in caught.value.allowed


def test_a_cluster_elsewhere_is_asked_for_its_own_number_of_cpus(tmp_path: Path) -> None:
    _check(tmp_path, {"ray_dashboard": "http://cluster:8265"}, pretrain={"workers": usable_cpus() + 1})


@pytest.mark.parametrize("engine", ["deepspeed", "torch"])
def test_either_engine_may_have_several_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setattr(preflight_module, "usable_cpus", lambda: 8)
    _check(tmp_path, pretrain={"workers": 2, "engine": engine})


def test_too_little_room_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_module, "LEAST_FREE_BYTES", 10**18)
    with pytest.raises(SetupError, match=rf"{tmp_path} has \d+ MB free\n  Allowed: at least 1000000000000 MB"):
        _check(tmp_path)


def test_settings_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "RAY_ADDRESS", "MLFLOW_URI"):
        monkeypatch.delenv(f"FOUNDATION_{name}", raising=False)
    here = Settings.from_environment()
    assert here.home == tmp_path / "data"
    assert here.mlflow_uri == f"sqlite:///{tmp_path}/data/mlflow.db"
    assert here.mlflow_artifacts == tmp_path / "data" / "mlflow-artifacts"
    monkeypatch.setenv("FOUNDATION_HOME", "elsewhere")
    monkeypatch.setenv("FOUNDATION_MLFLOW_URI", "http://mlflow:5000")
    there = Settings.from_environment()
    assert there.home == tmp_path / "elsewhere"
    assert (there.mlflow_uri, there.mlflow_artifacts) == ("http://mlflow:5000", None)

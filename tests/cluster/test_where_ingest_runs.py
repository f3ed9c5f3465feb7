"""An ingestion goes to a Ray cluster that has another machine than this one, with paths that hold there."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest

from cluster import preflight, ray_jobs, stopping
from cluster.planning import source_content_of, stage_key
from cluster.ray_jobs import is_here, is_more_than_this_machine
from cluster.session import Session, with_whole_paths
from cluster.settings import Settings
from foundation_core.errors import SetupError
from foundation_core.specs import IngestSpec, PipelineSpec, PretrainSpec
from tests.cluster.conftest import Recipes


def test_a_cluster_elsewhere_is_more_than_this_machine_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "_living_nodes", lambda address: pytest.fail("asked"))
    assert is_more_than_this_machine("http://head.example:8265")
    assert not is_here("http://10.0.0.7:8265")


@pytest.mark.parametrize(("nodes", "more"), [(0, False), (1, False), (2, True)])
def test_a_cluster_that_is_reached_here_is_more_if_it_has_several_nodes(
    nodes: int, more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_living_nodes", lambda address: [object()] * nodes)
    assert is_more_than_this_machine("http://127.0.0.1:8265") is more
    assert is_here("http://127.0.0.1:8265")
    assert is_here(""), "where nobody names a cluster, a run starts one here"


def test_paths_of_a_recipe_are_meant_from_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = {"path": {"kind": "folder", "path": "letters"}, "there": {"kind": "table", "path": "s3://bucket/texts"}}
    spec = IngestSpec.model_validate(
        {
            "source": {"kind": "several", "parts": parts},
            "decontamination": {"sets": [{"name": "asked", "path": "~/asked.jsonl", "text_field": "path"}]},
            "quality": {"c4": {"bad_words": "words.txt"}},
            "tokenizer": {"kind": "existing", "path": "/there/tokenizer.json"},
        }
    ).model_dump(mode="json")
    whole = with_whole_paths(spec)
    assert whole["source"]["parts"]["path"]["path"] == str(tmp_path / "letters")
    assert whole["source"]["parts"]["there"]["path"] == "s3://bucket/texts"
    assert whole["decontamination"]["sets"][0]["path"] == str(Path.home() / "asked.jsonl")
    assert whole["decontamination"]["sets"][0]["text_field"] == "path"
    assert whole["quality"]["c4"]["bad_words"] == str(tmp_path / "words.txt")
    assert whole["tokenizer"]["path"] == "/there/tokenizer.json"
    assert IngestSpec.model_validate(whole).meaning() == IngestSpec.model_validate(spec).meaning()


def test_stores_and_caches_of_a_training_are_meant_from_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shards = {"address": "copies/corpus", "cache_folder": "~/cache"}
    spec = PretrainSpec.model_validate({"checkpoints": {"store": "copies/run"}, "shards": shards})
    whole = with_whole_paths(spec.model_dump(mode="json"))
    assert whole["checkpoints"]["store"] == str(tmp_path / "copies/run")
    assert whole["shards"]["address"] == str(tmp_path / "copies/corpus")
    assert whole["shards"]["cache_folder"] == str(Path.home() / "cache")
    there = spec.model_copy(update={"checkpoints": spec.checkpoints.model_copy(update={"store": "s3://bucket/run"})})
    assert with_whole_paths(there.model_dump(mode="json"))["checkpoints"]["store"] == "s3://bucket/run"


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("lives", [False, True])
def test_an_ingestion_whose_job_lives_is_followed_there_though_a_node_left(
    tmp_path: Path, ingest_recipe: Recipes, monkeypatch: pytest.MonkeyPatch, more: bool, lives: bool
) -> None:
    folder, asked = tmp_path / "little" / "ingest-0123456789ab", list[str]()
    jobs = {f"{folder.parent.name}-0123456789ab-0": "exec python"} if lives else {}
    monkeypatch.setattr(stopping, "live_jobs", lambda address: asked.append(address) or jobs)
    settings = Settings(tmp_path, ray_dashboard="http://127.0.0.1:8265")
    session = Session(ingest_recipe(), settings, "content", lambda stage, event: None, last="ingest")
    assert not session._goes_to_ray("ingest", folder), "nobody asked whether the cluster is more"
    session._joins = Future()
    session._joins.set_result(more)
    assert session._goes_to_ray("ingest", folder) is (more or lives)
    assert asked == ([] if more else ["http://127.0.0.1:8265"])


def test_an_ingestion_on_a_cluster_is_not_measured_by_the_memory_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = IngestSpec(work_memory_bytes=10**15)
    for nodes in (1, 2):
        monkeypatch.setattr(ray_jobs, "_living_nodes", lambda address, nodes=nodes: [object()] * nodes)
        with nullcontext() if nodes > 1 else pytest.raises(SetupError, match="and this machine has"):
            preflight._fits_ingest(spec, "http://127.0.0.1:8265")
    with pytest.raises(SetupError, match="and this machine has"):
        preflight._fits_ingest(spec, "")


def test_whole_paths_leave_the_key_as_it_is(
    ingest_recipe: Recipes, small_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_corpus.parent)
    recipe = ingest_recipe(source={"kind": "folder", "path": small_corpus.name})
    spec = IngestSpec.model_validate(with_whole_paths(recipe.ingest.model_dump(mode="json")))
    assert spec.source.path == str(small_corpus)
    content = source_content_of(recipe)
    other: PipelineSpec = recipe.model_copy(update={"ingest": spec})
    assert stage_key(other, "ingest", {}, content) == stage_key(recipe, "ingest", {}, content)

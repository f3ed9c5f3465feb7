"""Keys name the work by what decides its result, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation_core import identity
from foundation_core.identity import action_key, content_hash, differences
from foundation_core.recipe import parse_recipe
from foundation_core.specs import FinetuneSpec, IngestSpec, PretrainSpec, SourceSpec, Spec, SplitSpec

WIDE = PretrainSpec(workers=7, threads_per_worker=3, micro_batch_rows=1, engine="torch", zero_stage=3)


@pytest.mark.parametrize(
    ("stage", "spec", "same"),
    [
        ("pretrain", PretrainSpec(), WIDE),
        ("pretrain", PretrainSpec(), PretrainSpec(checkpoint_every_steps=1, keep_checkpoints=9)),
        ("ingest", IngestSpec(workers=1), IngestSpec(workers=5)),
        ("ingest", IngestSpec(source=SourceSpec(path="/here")), IngestSpec(source=SourceSpec(path="/there"))),
        ("finetune", FinetuneSpec(workers=1), FinetuneSpec(workers=2)),
    ],
)
def test_no_path_host_or_worker_count_is_in_a_key(stage: str, spec: Spec, same: Spec) -> None:
    assert spec != same
    assert action_key(stage, spec, {}) == action_key(stage, same, {})


@pytest.mark.parametrize(
    ("field", "spec", "other"),
    [
        ("spec.seed: 0 -> 1", PretrainSpec(), PretrainSpec(seed=1)),
        ("spec.optimizer.lr", PretrainSpec(), parse_recipe({"pretrain": {"optimizer": {"lr": 0.5}}}).pretrain),
        ("spec.split.seed: 0 -> 3", IngestSpec(), IngestSpec(split=SplitSpec(seed=3))),
        ("spec.lr: [0.1] -> [0.1, 0.2]", FinetuneSpec(lr=(0.1,)), FinetuneSpec(lr=(0.1, 0.2))),
    ],
)
def test_a_field_with_meaning_changes_the_key_and_is_named(field: str, spec: Spec, other: Spec) -> None:
    stage = type(spec).__name__.removesuffix("Spec").lower()
    old, new = action_key(stage, spec, {}), action_key(stage, other, {})
    assert old.digest != new.digest
    (told,) = differences(old.parts, new.parts)
    assert told.startswith(field)


def test_inputs_count_by_name_and_content_and_not_by_order() -> None:
    spec = FinetuneSpec()
    key = action_key("finetune", spec, {"corpus": "a", "trunk": "b"})
    assert key == action_key("finetune", spec, {"trunk": "b", "corpus": "a"})
    assert key.digest != action_key("finetune", spec, {"corpus": "b", "trunk": "a"}).digest


def test_a_new_library_or_code_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    old = action_key("ingest", IngestSpec(), {})
    with monkeypatch.context() as patch:
        patch.setattr(identity, "version", lambda name: "99")
        new = action_key("ingest", IngestSpec(), {})
    assert new.digest != old.digest
    assert [told.rpartition(" -> ")[2] for told in differences(old.parts, new.parts)] == ["99"] * len(
        identity.LIBRARIES["ingest"]
    )
    monkeypatch.setitem(identity.CODE_VERSIONS, "ingest", 77)
    newer = action_key("ingest", IngestSpec(), {})
    assert newer.digest != old.digest
    assert differences(old.parts, newer.parts)[0].endswith("-> 77")


def test_a_library_that_is_not_installed_is_absent_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(identity.LIBRARIES, "ingest", ("no-such-library",))
    assert action_key("ingest", IngestSpec(), {}).parts["libraries"] == {"no-such-library": "absent"}


def test_a_key_survives_the_way_through_json() -> None:
    key = action_key("finetune", FinetuneSpec(), {"corpus": "a"})
    assert differences(json.loads(json.dumps(key.parts)), key.parts) == []


def test_differences_name_what_came_and_what_went() -> None:
    told = differences({"a": {"b": 1, "gone": 2}, "same": 3}, {"a": {"b": 2}, "same": 3, "new": 4})
    assert told == ["a.b: 1 -> 2", "a.gone: 2 -> None", "new: None -> 4"]


def test_a_content_hash_is_of_names_and_digests() -> None:
    assert content_hash({"a": "1", "b": "2"}) == content_hash({"b": "2", "a": "1"})
    assert len({content_hash({"a": "1", "b": "2"}), content_hash({"a": "2", "b": "1"}), content_hash({})}) == 3


def test_no_place_on_this_machine_is_in_any_key(tmp_path: Path) -> None:
    recipe = parse_recipe({"ingest": {"source": {"kind": "folder", "path": str(tmp_path)}}})
    for stage in identity.CODE_VERSIONS:
        parts = json.dumps(action_key(stage, getattr(recipe, stage), {}).parts)
        assert not any(place in parts for place in (str(tmp_path), str(Path.home()), str(Path.cwd())))

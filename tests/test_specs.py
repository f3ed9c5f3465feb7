"""Specs: closed, frozen, documented, and clear about which fields decide the result."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from foundation_core.specs import (
    EvaluateSpec,
    FilterSpec,
    FinetuneSpec,
    IngestSpec,
    PipelineSpec,
    PretrainSpec,
    PublishSpec,
    Spec,
    TrunkSpec,
    described_leaves,
    leaves,
)

PLACE = {
    "ingest.source.path",
    "ingest.source.text_field",
    "ingest.source.id_field",
    "ingest.source.label_field",
    "ingest.source.licence_field",
    "ingest.source.image_field",
    "ingest.quality.c4.bad_words",
    "ingest.source.audio_field",
    "ingest.source.caption_field",
    "ingest.tokenizer.path",
    "ingest.unit_bytes",
    "ingest.work_memory_bytes",
    "ingest.workers",
    "pretrain.checkpoint_every_steps",
    "pretrain.keep_checkpoints",
    "pretrain.checkpoints.every_minutes",
    "pretrain.checkpoints.keep_best",
    "pretrain.checkpoints.keep_each_minutes",
    "pretrain.checkpoints.verify_outputs",
    "pretrain.checkpoints.store",
    "pretrain.checkpoints.store_patience_minutes",
    "pretrain.checkpoints.stop_seconds",
    "pretrain.workers",
    "pretrain.least_workers",
    "pretrain.threads_per_worker",
    "pretrain.device",
    "pretrain.micro_batch_rows",
    "pretrain.prefetch_steps",
    "pretrain.recovery.recomputations",
    "pretrain.recovery.most_recomputed_steps",
    "pretrain.recovery.most_quarantined_documents",
    "pretrain.recovery.most_skipped_steps",
    "pretrain.recovery.halve_micro_batch",
    "pretrain.shards.address",
    "pretrain.shards.cache_bytes",
    "pretrain.shards.cache_folder",
    "pretrain.engine",
    "pretrain.offload_optimizer",
    "pretrain.activation_checkpointing",
    "pretrain.compile",
    "pretrain.zero_stage",
    "pretrain.watch.hang_seconds",
    "pretrain.watch.hang_medians",
    "pretrain.watch.first_seconds",
    "pretrain.watch.straggler_factor",
    "pretrain.watch.straggler_steps",
    "pretrain.watch.straggler_seconds",
    "pretrain.watch.cpu_watts",
    "pretrain.watch.card_watts",
    "finetune.workers",
    "evaluate.threads",
}
"""The fields that say where and how wide: none of them may decide what comes out."""


def _fields(spec: type[Spec], prefix: str = "") -> dict[str, str]:
    """The role of every leaf field, nested specs included."""
    roles: dict[str, str] = {}
    for name, field in spec.model_fields.items():
        if isinstance(field.default, Spec):
            roles |= _fields(type(field.default), f"{prefix}{name}.")
        else:
            roles[f"{prefix}{name}"] = spec.role(name)
    return roles


def _meanings(body: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in body.items():
        found |= _meanings(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}"}
    return found


def test_where_and_how_wide_is_placement_and_all_else_is_meaning() -> None:
    roles = _fields(PipelineSpec)
    assert {name for name, role in roles.items() if role == "placement"} == PLACE
    assert {name for name, role in roles.items() if role == "presentation"} == {"name", "last"}
    assert _meanings(PipelineSpec().meaning()) == roles.keys() - PLACE - {"name", "last"}


def test_meaning_reaches_into_specs_inside_tuples() -> None:
    spec = IngestSpec(filters=(FilterSpec(measure="characters", at_least=2),))
    assert spec.meaning()["filters"] == [{"measure": "characters", "at_least": 2.0, "at_most": None}]


def test_every_field_has_a_help_text() -> None:
    assert [name for name, _, text in described_leaves(PipelineSpec) if not text] == []


def test_forms_show_the_fields_in_the_order_of_definition() -> None:
    properties = PipelineSpec.model_json_schema()["$defs"]["TrunkSpec"]["properties"]
    assert [field["position"] for field in properties.values()] == list(range(len(TrunkSpec.model_fields)))


def test_leaves_are_the_dotted_names_of_the_command_line() -> None:
    assert dict(leaves(PipelineSpec()))["pretrain.model.trunk.width"] == TrunkSpec().width


def test_a_spec_cannot_change_and_takes_no_unknown_field() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrunkSpec().width = 8  # type: ignore[misc]
    with pytest.raises(ValidationError, match="not permitted"):
        TrunkSpec(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 100, "heads": 3}, "heads must divide width: width=100, heads=3"),
        ({"width": 12, "heads": 4}, "even head width, found 3"),
        ({"width": 64, "heads": 4, "kv_heads": 3}, "kv_heads must divide heads: heads=4, kv_heads=3"),
    ],
)
def test_widths_that_do_not_divide_are_refused_with_the_numbers(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrunkSpec(**fields)


def test_workers_may_be_written_as_a_range() -> None:
    written = PretrainSpec.model_validate({"workers": [1, 4]})
    assert written == PretrainSpec(workers=4, least_workers=1)
    assert (written.fewest_workers, PretrainSpec(workers=3).fewest_workers) == (1, 3)
    assert PretrainSpec.model_validate(written.model_dump(mode="json")) == written
    assert written.meaning() == PretrainSpec(workers=2).meaning(), "how many workers there are decides nothing"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": [4]}, "allowed: a number, or [least, most]"),
        ({"workers": [1, 2, 3]}, "allowed: a number, or [least, most]"),
        ({"workers": [1, 2], "least_workers": 1}, "allowed: one of them"),
        ({"workers": [3, 2]}, "least_workers=3 must not exceed workers=2"),
        ({"workers": [0, 2]}, "greater than or equal to 1"),
    ],
)
def test_a_range_of_workers_that_is_none_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        PretrainSpec.model_validate(fields)


def test_a_filter_without_a_bound_is_refused() -> None:
    with pytest.raises(ValidationError, match="neither at_least nor at_most"):
        FilterSpec(measure="characters")


def test_specs_load_without_torch() -> None:
    code = "import sys, foundation_core.specs, foundation_core.recipe; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("kind", [IngestSpec, PretrainSpec, FinetuneSpec, EvaluateSpec, PublishSpec])
def test_a_field_that_is_named_changes_no_other_field_of_its_section(kind: type[Spec]) -> None:
    """What `foundation fields` prints as a default is the default, whether its section is in the recipe or not."""

    def sections(spec: type[Spec]) -> Iterator[tuple[Spec, type[Spec]]]:
        for field in spec.model_fields.values():
            if isinstance(field.default, Spec):
                yield field.default, type(field.default)
                yield from sections(type(field.default))

    found = list(sections(kind))
    for default, section in found:
        assert section.model_validate({}) == default
    printed = {name: value for name, value, _ in described_leaves(kind)}
    assert printed == dict(leaves(kind()))

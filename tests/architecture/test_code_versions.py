"""A stage's code version must move when its source does, or somebody says that the change cannot alter a result."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from foundation_core.identity import CODE_VERSIONS

_SPEC = importlib.util.spec_from_file_location("stage_sources", Path(__file__).with_name("stage_sources.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
stage_sources = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stage_sources)


@pytest.mark.parametrize("stage", stage_sources.STAGES)
def test_a_changed_stage_has_a_new_version_or_a_word_that_nothing_changed(stage: str) -> None:
    recorded = json.loads(stage_sources.RECORD.read_text())[stage]
    now = {"version": CODE_VERSIONS[stage], "source": stage_sources.source_digest(stage)}
    assert now == recorded, (
        f"the source of {stage} changed. If the same inputs may now give another result, raise CODE_VERSIONS[{stage!r}]"
        " in foundation_core/identity.py; then run: python tests/architecture/stage_sources.py"
    )


def test_the_digest_follows_imports_and_ignores_docstrings() -> None:
    assert stage_sources.source_digest("ingest") != stage_sources.source_digest("pretrain")
    reached = stage_sources._imports(stage_sources.ROOT / "foundation_core" / "stages" / "pretrain.py")
    assert stage_sources.ROOT / "foundation_core" / "train" / "loop.py" in reached
    quiet = stage_sources.ROOT / "foundation_core" / "train" / "schedule.py"
    assert "Loshchilov" in quiet.read_text()
    assert "Loshchilov" not in stage_sources._meaning(quiet)


def test_the_digest_follows_what_is_found_by_name() -> None:
    modules = {path.stem for path in stage_sources._found_by_name("ingest")}
    assert {"images", "audio", "series", "digits", "text_tables"} <= modules
    assert {path.stem for path in stage_sources._found_by_name("finetune")} >= {"fragments", "values"}
    assert stage_sources._found_by_name("pretrain") == []

"""What a recipe would do now: for each stage, reuse or run, and why. Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundation_core.files import sha256_json
from foundation_core.identity import ActionKey, action_key, differences
from foundation_core.specs import PipelineSpec
from foundation_core.store import UNITS_FOLDER, Result, Store

INPUTS: Mapping[str, tuple[str, ...]] = {
    "ingest": (),
    "pretrain": ("corpus",),
    "finetune": ("corpus", "trunk"),
    "evaluate": ("corpus", "trunk", "task"),
    "publish": ("corpus", "trunk", "task", "scores"),
}
"""What each stage reads, by role."""

ROLES: Mapping[str, str] = {
    "ingest": "corpus",
    "pretrain": "trunk",
    "finetune": "task",
    "evaluate": "scores",
    "publish": "version",
}
"""What each stage's result is to the stages after it, and to people."""

_BADGED = ("evaluate", "publish")
"""Stages whose results say against what the corpus was checked."""


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Args:
        key: None while an earlier stage has to run first, since its content is not known.
        result: the committed result, where there is one.
        reasons: what differs from the nearest earlier result, when the stage has to run.
    """

    stage: str
    key: ActionKey | None
    result: Result | None
    reasons: tuple[str, ...] = ()


def stage_key(recipe: PipelineSpec, stage: str, inputs: Mapping[str, Result], source_content: str) -> ActionKey:
    """The action key of a stage of a recipe."""
    if stage == "ingest":
        from foundation_core.data.sources.modalities import ingest_key

        return ingest_key(recipe.ingest, source_content)
    contents = {role: result.content for role, result in inputs.items()}
    if stage in _BADGED and (sets := inputs["corpus"].summary.get("decontamination")):
        contents["decontamination"] = sha256_json(sets)  # the same documents, now checked: scores and cards say so
    return action_key(stage, getattr(recipe, stage), contents)


def source_content_of(recipe: PipelineSpec, results: Path | None = None) -> str:
    """The content hash of the recipe's raw files.

    Args:
        results: folder of results, where digests of files are kept: only what is new is read. None: all is read.

    Raises:
        ConfigError, DataError: the source is missing or empty.
    """
    from foundation_core.data.sources.digests import source_content
    from foundation_core.data.sources.documents import open_source

    return source_content(open_source(recipe.ingest.source).files(), results and results / UNITS_FOLDER)


def plan(recipe: PipelineSpec, store: Store, source_content: str) -> list[Step]:
    """Every stage of the recipe, in order."""
    steps: list[Step] = []
    results: dict[str, Result] = {}
    for stage, roles in INPUTS.items():
        if any(role not in results for role in roles):
            steps.append(Step(stage, None, None, ("an earlier stage runs first",)))
            continue
        key = stage_key(recipe, stage, {role: results[role] for role in roles}, source_content)
        result = store.find(key)
        steps.append(Step(stage, key, result, () if result else _reasons(key, store)))
        if result is not None:
            results[ROLES[stage]] = result
    return steps


def _reasons(key: ActionKey, store: Store) -> tuple[str, ...]:
    """What differs from the earlier result that is most like this one."""
    candidates = [differences(old.parts, key.parts) for old in store.history(key.stage)]
    if not candidates:
        return ("never run in this data folder",)
    fewest: list[str] = min(candidates, key=len)
    return tuple(fewest)

"""A plan as people read it: on the command line, and as the artifact `plan` of a run in Prefect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from cluster.forecast import Forecast
from cluster.planning import Step
from foundation_core.cost.size import size_told
from foundation_core.specs import PipelineSpec


def stage_rows(steps: Iterable[Step], found: Forecast) -> list[dict[str, str]]:
    """For each stage: reuse or run, the time that it saves or takes, and why."""
    rows = []
    for step in steps:
        if step.result is not None:
            time, why = f"saves {duration(step.result.seconds)}", f"found: {step.result.folder.name}"
            rows.append({"stage": step.stage, "what": "reuse", "time": time, "why": why})
        else:
            time, why = f"~{duration(found.seconds[step.stage])}", "; ".join(step.reasons)
            rows.append({"stage": step.stage, "what": "run", "time": time, "why": why})
    return rows


def fact_rows(recipe: PipelineSpec, found: Forecast) -> list[tuple[str, str]]:
    """What the run as a whole takes."""
    workers = recipe.pretrain.workers
    epochs = ", ".join(f"{count:.2g} of {source}" for source, count in found.epochs.items())
    return [
        ("parameters", size_told(found.parameters, found.active_parameters)),
        ("training corpus", f"{_many(found.corpus_size)} {found.unit}"),
        ("trained on", f"{_many(found.trained_size)} {found.unit}"),
        ("epochs", epochs),
        ("memory per worker", f"about {found.worker_bytes / 1e9:.2f} GB, of {workers} workers"),
        ("disk", f"about {found.disk_bytes / 1e6:.0f} MB"),
        ("time", f"about {duration(sum(found.seconds.values()))}, {found.basis}" if found.seconds else "none"),
    ]


def plan_markdown(recipe: PipelineSpec, steps: Sequence[Step], found: Forecast) -> str:
    """The plan of a run."""
    lines = ["| stage | | time | why |", "| --- | --- | ---: | --- |"]
    lines += [f"| {row['stage']} | {row['what']} | {row['time']} | {row['why']} |" for row in stage_rows(steps, found)]
    lines += ["", "| the run | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in fact_rows(recipe, found)]
    return "\n".join(lines)


def plan_json(steps: Iterable[Step], found: Forecast) -> str:
    """The plan for a script."""
    stages = [
        {
            "stage": step.stage,
            "what": "run" if step.result is None else "reuse",
            "reasons": list(step.reasons),
            "folder": str(step.result.folder) if step.result else None,
        }
        for step in steps
    ]
    return json.dumps({"stages": stages, **asdict(found)})


def _many(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 100_000 else f"{count:,}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would choose."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""Which steps an ingestion takes, in their fixed order: each works on what the one before it left."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from foundation_core.data.steps.control import ControlCharacters
from foundation_core.data.steps.lines import Lines
from foundation_core.data.steps.personal import Personal
from foundation_core.data.steps.repair import EncodingRepair
from foundation_core.data.steps.step import Step, Stepped
from foundation_core.spec_ingest import IngestSpec


def steps_of(spec: IngestSpec) -> tuple[Step, ...]:
    """The steps in use: encoding repair, control characters, lines, personal data.

    Raises:
        SetupError: a library that one of them needs is not installed.
    """
    cleaning, steps = spec.cleaning, list[Step]()
    if cleaning.encoding.use:
        steps.append(EncodingRepair())
    if cleaning.control.use:
        steps.append(ControlCharacters(cleaning.control))
    if cleaning.lines.use:
        steps.append(Lines(cleaning.lines, spec.quality.language))
    if cleaning.personal.use:
        steps.append(Personal(cleaning.personal))
    return tuple(steps)


def take_steps(steps: Sequence[Step], texts: pa.Array) -> Stepped:
    """The texts after all steps, and all changes under the names of step and kind, such as `lines/policy`."""
    changes = dict[str, pa.Array]()
    for step in steps:
        texts, made = step(texts)
        changes |= {f"{step.name}/{kind}": counts for kind, counts in made.items()}
    return Stepped(texts, changes)

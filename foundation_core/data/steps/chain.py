"""Which steps an ingestion takes, in their fixed order: each works on what the one before it left."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.steps.control import ControlCharacters
from foundation_core.data.steps.lines import Lines
from foundation_core.data.steps.personal import Personal
from foundation_core.data.steps.repair import EncodingRepair
from foundation_core.data.steps.step import Step, Stepped
from foundation_core.specs.ingest import IngestSpec


def steps_of(spec: IngestSpec, language: str | None = None) -> tuple[Step, ...]:
    """The steps in use: encoding repair, control characters, lines, personal data.

    Args:
        language: of the texts; `OTHERS` for one without lists. None: the spec's.

    Raises:
        SetupError: a library that one of them needs is not installed.
    """
    cleaning, steps = spec.cleaning, list[Step]()
    if cleaning.encoding.use:
        steps.append(EncodingRepair())
    if cleaning.control.use:
        steps.append(ControlCharacters(cleaning.control))
    if cleaning.lines.use:
        steps.append(Lines(cleaning.lines, spec.quality.language if language is None else language))
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


def cleaned(documents: pa.Table, steps: Sequence[Step]) -> tuple[pa.Table, dict[str, int]]:
    """Documents with the texts that the steps made, their sizes and digests; and the sum of each kind of change."""
    if not steps:
        return documents, {}
    texts, changes = take_steps(steps, documents["text"].combine_chunks())
    data = texts.cast(pa.large_binary())
    digests = [hashlib.sha256(text).hexdigest() for text in data.to_pylist()]
    new = {
        "text": texts,
        "bytes": pc.cast(pc.binary_length(data), pa.int64()),
        "sha256": pa.array(digests, pa.string()),
    }
    for name, column in new.items():
        documents = documents.set_column(documents.schema.get_field_index(name), documents.schema.field(name), column)
    return documents, {kind: pc.sum(counts).as_py() or 0 for kind, counts in changes.items()}

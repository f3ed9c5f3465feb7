"""How documents are cleaned and judged: all of them alike, or those of each language by the lists of that language.

documents --by language--> es: steps, rules of es   --> kept | dropped, in the order in which they came
                           en: steps, rules of en
                           any other: what needs no list
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.rules.filters import Rule, apply_filters, rules_of
from foundation_core.data.steps.chain import cleaned, steps_of
from foundation_core.data.steps.step import Step
from foundation_core.data.stopwatch import Stopwatch
from foundation_core.specs import IngestSpec
from foundation_core.specs.quality import OTHERS, STOP_WORDS


class Treated(NamedTuple):
    """What became of documents.

    Args:
        dropped: as rows of `DROPPED`.
        changes: how often each step changed something, by kind.
    """

    kept: pa.Table
    dropped: pa.Table
    changes: Mapping[str, int]


@dataclass(frozen=True)
class Treatment:
    """Steps that change texts, and the rules that the changed ones must keep.

    Args:
        dropped_characters: that are kept of a text which breaks one.
    """

    steps: tuple[Step, ...] = ()
    rules: tuple[Rule, ...] = ()
    dropped_characters: int = 0

    def applied(self, documents: pa.Table, watch: Stopwatch) -> Treated:
        """The documents, cleaned and judged."""
        with watch.of("cleaning"):
            documents, changes = cleaned(documents, self.steps)
        with watch.of("rules"):
            return Treated(*apply_filters(documents, self.rules, self.dropped_characters), changes)


@dataclass(frozen=True)
class Treatments:
    """The treatment of documents; it travels to worker processes.

    Args:
        others: of all documents, or of those in languages that have none of their own.
        languages: those that have, by the code that stands in the column `language` of the documents.
    """

    others: Treatment = Treatment()
    languages: Mapping[str, Treatment] = field(default_factory=dict)

    def applied(self, documents: pa.Table, watch: Stopwatch) -> Treated:
        """The documents, cleaned and judged; those that are kept are in the order in which they came."""
        if not self.languages:
            return self.others.applied(documents, watch)
        treated = list[Treated]()
        for treatment, rows in self._groups(documents["language"].combine_chunks()):
            numbered = documents.take(rows).append_column("", rows)
            treated.append(treatment.applied(numbered, watch))
        kept = pa.concat_tables([one.kept for one in treated]).sort_by("").drop_columns([""])
        changes = Counter[str]()
        for one in treated:
            changes.update(one.changes)
        return Treated(kept, pa.concat_tables([one.dropped for one in treated]), dict(changes))

    def _groups(self, languages: pa.Array) -> Iterator[tuple[Treatment, pa.Array]]:
        """Each treatment, with the rows of its documents; the last one's may be none."""
        for code, treatment in self.languages.items():
            if len(rows := pc.indices_nonzero(pc.equal(languages, code))):
                yield treatment, rows
        known = pc.is_in(languages, pa.array(self.languages, pa.string()))
        yield self.others, pc.indices_nonzero(pc.invert(known))


def treatments_of(spec: IngestSpec, first: Sequence[Rule] = ()) -> Treatments:
    """The treatments that a spec asks for.

    Args:
        first: rules that come before all others, whatever the language.

    Raises:
        ConfigError: nothing installed provides one of the measures.
        SetupError: a library that a step needs is not installed.
    """

    def treatment(language: str | None) -> Treatment:
        rules = (*first, *rules_of(spec, language))
        return Treatment(steps_of(spec, language), rules, spec.dropped_text_characters)

    if not spec.quality.by_language:
        return Treatments(treatment(None))
    return Treatments(treatment(OTHERS), {language: treatment(language) for language in STOP_WORDS})

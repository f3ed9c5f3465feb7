"""Documents that were withdrawn: they lie where they lay, and are left out before anything is read.

    files --named as a whole--> left out
    tables and archives --rows and members that are named--> left out as their part is read

A pattern is a document id in which * and ? may stand for others (`folder/letters/*`), or the name of a source of
several. Each must name something, for one that was misspelt would withdraw nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import translate

from foundation_core.data.sources.documents import Refused, SourceFile
from foundation_core.errors import ConfigError

_WILDCARDS = re.compile(r"[*?[]")


class Withdrawal:
    """What patterns withdraw."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(sorted(set(patterns)))
        self._names = set(self.patterns)  # also those with wildcards, for an id may hold a bracket
        self._wild = {
            pattern: re.compile(translate(pattern)) for pattern in self.patterns if _WILDCARDS.search(pattern)
        }

    def leaves(self, files: Iterable[SourceFile], withdrawn: Counter[str]) -> Iterator[SourceFile]:
        """What is left: of files of many of which something may be named, the documents apart.

        Args:
            withdrawn: is increased, for each pattern, by what it names: documents, or files of many as a whole.
        """
        if not self.patterns:
            yield from files
            return
        for file in files:
            if any(map(file.may_hold, self.patterns)):  # then its own name is that of a part, and no document's
                for entry in file.entries():
                    withdrawn.update(names := self._naming(entry))
                    if not names:
                        yield entry
            elif names := self._naming(file):
                withdrawn.update(names)
            else:
                yield file

    def within(self, file: SourceFile) -> Withdrawal:
        """The patterns that may name something in a part of a file of many, or what was set aside as it was cut."""
        aside = self._naming(file) if isinstance(file, Refused) else ()
        return Withdrawal([*filter(file.may_hold, self.patterns), *aside])

    def require(self, withdrawn: Mapping[str, int]) -> None:
        """Refuse patterns that name nothing, unless the file or source that they look into is withdrawn as a whole.

        Raises:
            ConfigError: one does.
        """
        whole = tuple(f"{pattern}/" for pattern in self.patterns if withdrawn.get(pattern))
        for pattern in self.patterns:
            if not withdrawn.get(pattern) and not pattern.startswith(whole):
                raise ConfigError(
                    f"ingest.source.withdrawn: {pattern!r} names no document",
                    allowed="ids of documents, in which * and ? may stand for others, or names of source.parts",
                    fix="correct it; `foundation peek` shows ids",
                )

    def _naming(self, file: SourceFile) -> list[str]:
        """The patterns that name a document or the whole of a file."""
        names = {file.document, file.source} & self._names
        return [*names, *(one for one, fits in self._wild.items() if one not in names and fits.match(file.document))]


NOTHING_WITHDRAWN = Withdrawal(())

"""Several sources as one: each document keeps the name of its source, and is of that group where it has no other.

parts:
  wiki: {kind: table, path: s3://texts/wiki.jsonl.zst}      --> "wiki/table/wiki.jsonl.zst/000000012"
  books: {kind: folder, path: /data/books, pattern: "**/*.txt"}    --> "books/folder/quixote.txt"
"""

from __future__ import annotations

from dataclasses import replace

from foundation_core.data.sources.documents import Source, SourceFile, open_source
from foundation_core.errors import ConfigError
from foundation_core.specs import SourceSpec


class Several:
    """The sources that a spec names, in the order of their documents."""

    def __init__(self, spec: SourceSpec) -> None:
        if not spec.parts:
            raise ConfigError(
                "source.kind=several needs source.parts", fix="name the sources, each with its kind and path"
            )
        in_order = sorted(spec.parts.items(), key=lambda part: f"{part[0]}/")  # as the ids of their documents begin
        self.parts: dict[str, Source] = {name: open_source(SourceSpec(**dict(part))) for name, part in in_order}
        kinds = {(source.modality, source.captioned) for source in self.parts.values()}
        if len(kinds) > 1:
            found = ", ".join(f"{name} has {_items(source)}" for name, source in self.parts.items())
            raise ConfigError(f"the sources of source.parts differ: {found}", allowed="items of one kind")
        self.modality, self.captioned = kinds.pop()
        self.findings: list[str] = []
        self.description = "; ".join(f"{name}: {source.description}" for name, source in self.parts.items())
        self.language = self._joined("language")
        self.licence = self._joined("licence")

    def files(self) -> list[SourceFile]:
        """The files of every source, one source behind the other."""
        found = [
            replace(file, document=f"{name}/{file.document}", source=name, licence=file.licence or source.licence)
            for name, source in self.parts.items()
            for file in source.files()
        ]
        of_parts = {name: getattr(source, "findings", ()) for name, source in self.parts.items()}
        self.findings = [f"{name}: {said}" for name, findings in of_parts.items() for said in findings]
        return found

    def _joined(self, name: str) -> str:
        """What the sources say of themselves, each thing once."""
        return "; ".join(dict.fromkeys(getattr(source, name) for source in self.parts.values()))


def _items(source: Source) -> str:
    return f"{source.modality}s" + (" with captions" if source.captioned else "")

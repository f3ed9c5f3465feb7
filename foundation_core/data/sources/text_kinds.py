"""Which files of a folder are texts by their names, where no pattern says it; what is left out is counted and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from foundation_core.data.archives.names import is_archive
from foundation_core.data.reading.unpacking import unpacked_name
from foundation_core.data.sources.documents import SourceFile
from foundation_core.data.tables.files import is_table
from foundation_core.plugins import names

PROSE = frozenset({"", ".txt", ".text", ".rst", ".adoc", ".org", ".tex", ".log", ".srt", ".vtt", ".po"})
CODE = frozenset({
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cs", ".java", ".kt", ".scala", ".go",
    ".rs", ".swift", ".m", ".mm", ".js", ".mjs", ".jsx", ".ts", ".tsx", ".vue", ".php", ".rb", ".pl", ".pm",
    ".lua", ".r", ".jl", ".hs", ".ml", ".mli", ".ex", ".exs", ".erl", ".clj", ".lisp", ".el", ".scm", ".f",
    ".f90", ".sql", ".sh", ".bash", ".zsh", ".ps1", ".css", ".scss", ".json", ".yaml", ".yml", ".toml", ".ini",
    ".cfg", ".xml", ".proto", ".cmake", ".mk", ".gradle", ".dockerfile",
})  # fmt: skip
"""Endings of names; those of formats that are read otherwise (.html, .pdf, ...) and of archives are texts too."""
BY_ROWS = "source.kind=table reads their rows"
_SHOWN = 5


def known_texts(files: Sequence[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    """The files that are texts by their names, and what is left out of a folder, in words.

    What cannot be looked into (a closed folder, a link to nothing) stays: it is quarantined, and not passed over.
    """
    kept, hidden, tables, other = list[SourceFile](), 0, list[str](), Counter[str]()
    texts = PROSE | CODE | set(names("formats"))
    for file in files:
        below = PurePosixPath(file.document.partition("/")[2])
        ending = PurePosixPath(unpacked_name(below.name)).suffix.lower()
        if any(part.startswith(".") for part in below.parts):
            hidden += 1
        elif is_archive(below.name) or ending in texts or _is_closed(file):
            kept.append(file)
        elif is_table(file.path):
            tables.append(file.document)
        else:
            other[ending] += 1
    said = []
    if tables:
        said.append(f"{len(tables)} tables are left out, such as {tables[0]}: {BY_ROWS}")
    if hidden:
        said.append(f"{hidden} files are left out that are hidden, or lie in hidden folders")
    if other:
        shown = ", ".join(f"{count} {ending}" for ending, count in other.most_common(_SHOWN))
        more = ", ..." if len(other) > _SHOWN else ""
        said.append(f"{other.total()} files are left out that are no texts by their names ({shown}{more}): "
                    "source.pattern names what is read")  # fmt: skip
    return kept, said


def _is_closed(file: SourceFile) -> bool:
    return isinstance(file.path, Path) and not file.path.is_file()

"""Which files are archives, by their names."""

from __future__ import annotations

from pathlib import PurePosixPath

from foundation_core.data.reading.unpacking import unpacked_name

_SHORT = {".tgz": ".tar.gz", ".txz": ".tar.xz", ".tzst": ".tar.zst"}


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name: .zip; .tar, also packed."""
    return archive_kind(name) != ""


def archive_kind(name: str) -> str:
    long = long_name(name)
    ending = PurePosixPath(long).suffix.lower()
    if ending == ".zip":
        return "zip"
    return "tar" if PurePosixPath(unpacked_name(long)).suffix.lower() == ".tar" else ""


def long_name(name: str) -> str:
    """A name whose ending says the packing in full."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) + _SHORT.get(ending.lower(), ending)

"""One file as one text, by the format that its name's ending says.

"notes.txt", bytes --extract--> text, encoding | ValueError(reason)
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath
from typing import cast

from foundation_core.data.formats.base import Extracted, Format, Refused, check_size
from foundation_core.data.formats.plain import Plain
from foundation_core.data.formats.signatures import UNKNOWN, looks_like
from foundation_core.plugins import find, names
from foundation_core.specs.reading import ReadingSpec


def extract(name: str, data: bytes, limits: ReadingSpec) -> Extracted:
    r"""The text of a file, in NFC with lines ended by \n, and the encoding that it was in.

    Args:
        name: of the file, without the endings of a packing.

    Raises:
        ValueError: it is no such file, has no text, or is too large; the message is the reason.
        SetupError: a library that its format needs is not installed.
    """
    check_size(len(data), limits, "a document")
    form = format_of(name)
    found = looks_like(data)
    if found not in form.accepts:
        ending = PurePosixPath(name).suffix.lower() or "without an ending"
        raise Refused(f"looks like {found or UNKNOWN}, and its name is {ending}")
    extracted = form.extract(data, limits)
    check_size(len(extracted.text.encode()), limits, "a text")
    return extracted


def format_of(name: str) -> Format:
    """The format that a name's ending says; plain text if it is nobody's.

    Raises:
        SetupError: a library that it needs is not installed.
    """
    ending = PurePosixPath(name).suffix.lower()
    return _format(ending if ending in names("formats") else "")


@cache
def _format(ending: str) -> Format:
    return cast(Format, find("formats", ending)() if ending else Plain())

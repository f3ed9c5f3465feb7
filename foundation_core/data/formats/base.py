"""What a format is, and how what a library raises becomes a reason."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple, Protocol

from foundation_core.data.reading.decoding import normalised
from foundation_core.specs.reading import ReadingSpec

_UNSHOWN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters, and surrogates, which UTF-8 cannot hold."""


class Extracted(NamedTuple):
    """The text of a file, and the encoding that it was in; "" for a format that is no text itself."""

    text: str
    encoding: str


class Refused(ValueError):
    """A file that is no text, for a reason of ours: it is the same on every machine."""


class Format(Protocol):
    """Found by the ending of a name (`foundation.formats`), built without arguments.

    Args:
        libraries: installed packages that decide what comes out.
        accepts: what its files look like by their first bytes (names of `signatures.looks_like`); "" for text.
    """

    libraries: tuple[str, ...]
    accepts: frozenset[str]

    def extract(self, data: bytes, limits: ReadingSpec) -> Extracted:
        """The text of a file's bytes.

        Raises:
            ValueError: there is none; the message is the reason, and the same on every machine.
        """


@contextmanager
def reasons(what: str) -> Iterator[None]:
    """Within it, whatever a library raises becomes a reason, and what it warns of is not shown.

    Args:
        what: the file that is read, such as "a PDF".
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Refused, MemoryError):
        raise
    except Exception as error:  # a library's words may name addresses, and change with its version
        raise Refused(f"{what} that cannot be read: {type(error).__name__}") from error


def check_size(size: int, limits: ReadingSpec, what: str) -> None:
    """Refuse a document, or the text of one, that is larger than the spec allows."""
    if size > limits.most_document_bytes:
        raise Refused(f"{what} of more than {limits.most_document_bytes} bytes")


def shown(text: str) -> str:
    r"""What a library read out of a document as a text like those of `decoded`, without what cannot be written."""
    return normalised(_UNSHOWN.sub("", text))


def versions_of(libraries: Iterable[str]) -> str:
    """The versions of libraries that are installed, a line each, in the order of their names."""
    return "".join(f"{library} {_version(library)}\n" for library in sorted(libraries))


@cache  # each look takes milliseconds, and a folder may have a million pages
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"

"""What an archive holds, whatever its format: members with a name that can be an id's, or a reason against them."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from typing import NamedTuple

from foundation_core.data.archives.names import is_archive
from foundation_core.data.formats.base import Refused, check_size
from foundation_core.specs.reading import ReadingSpec

LINK = "a link, which is not followed"
DEVICE = "a device and no file"
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


class Member(NamedTuple):
    """A member of an archive, or a place in one that holds none that can be read.

    Args:
        start, stop: its place and the one behind it.
        name: its path in the archive, without "." and doubled slashes; "" if it has none that can be an id's.
        refusal: why it is not to be read, or "".
        read: its bytes; to be called before the next member is asked for.
    """

    start: int
    stop: int
    name: str
    bytes: int
    refusal: str
    read: Callable[[], builtins.bytes]


def _named(path: str) -> tuple[str, str]:
    """A member's path as a part of an id, and why it cannot be one."""
    if not path or "\0" in path:
        return "", f"no path of a file: {path!r}"
    if path.startswith(("/", "\\")) or _DRIVE.match(path):
        return "", f"an absolute path: {path!r}"
    if ".." in re.split(r"[/\\]", path):
        return "", f"a path that leads out of the archive: {path!r}"
    name = "/".join(part for part in path.split("/") if part not in ("", "."))
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name, "" if name else f"no path of a file: {path!r}"


def _nothing() -> bytes:
    raise Refused("it holds nothing")


def too_large(size: int, limits: ReadingSpec) -> str:
    try:
        check_size(size, limits, "a member")
    except Refused as refused:
        return str(refused)
    return ""


def without_name(start: int, reason: str) -> Member:
    return Member(start, start, "", 0, reason, _nothing)


def member(start: int, stop: int, path: str, size: int, refusal: str, read: Callable[[], bytes]) -> Member:
    """A member, refused if its path is, or if it is an archive itself."""
    name, wrong = _named(path)
    if not wrong and is_archive(name):
        refusal = refusal or "an archive within an archive"
    return Member(start, stop, name, size, wrong or refusal, read)

"""What a rank saves, copied out of the engine's memory between two steps: the bytes of its file, ready to be written.

    fragments --one copy--> [header | float32 ... | bfloat16 ...] --a thread, later--> rank-0.safetensors

The training stands still for the copy alone. The memory is kept from save to save, so only the first one allocates.
The bytes are those of a safetensors file, header and all; made here, a file of any size needs no second copy.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foundation_core.train.fragments import INDEX, Fragment

PAGE_BYTES = 4096
"""What the disk is written in: the values begin at a multiple of it, so that each is aligned for every type."""
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The types by the names that safetensors gives them."""


class _Entry(NamedTuple):
    """A fragment without its values: those of one training are the same at each save."""

    name: str
    kind: str
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    size: int

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


class Staged(NamedTuple):
    """A file that is not written yet.

    Args:
        memory: from a page's beginning to the end of the last page that the file reaches into.
        size: bytes of the file.
    """

    memory: memoryview
    size: int


class Staging:
    """Host memory for one rank's part of a checkpoint."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._views: list[Tensor] = []
        self._staged: Staged | None = None

    def copy(self, fragments: Callable[[], Iterable[Fragment]]) -> Staged:
        """The bytes of a safetensors file of the fragments as they are now; valid until the next copy.

        Args:
            fragments: `Engine.fragments`. One fragment is held at a time, since an engine may have to make it.
        """
        if self._staged is None or not self._copied(fragments()):
            self._reserve([_entry(fragment) for fragment in fragments()])
            assert self._copied(fragments()), "the state changed while it was copied"
        assert self._staged is not None
        return self._staged

    def _copied(self, fragments: Iterable[Fragment]) -> bool:
        """Copy them to their places; False if they are not those that there are places for."""
        number = -1
        for number, fragment in enumerate(fragments):
            if number == len(self._entries) or _entry(fragment) != self._entries[number]:
                return False
            self._views[number].copy_(fragment.values.detach().reshape(-1))
        return number + 1 == len(self._entries)

    def _reserve(self, entries: list[_Entry]) -> None:
        """Take the memory, and write the header that stays the same."""
        offsets, end = _places(entries)
        header = _header(entries, offsets)
        memory = mmap.mmap(-1, _whole_pages(len(header) + end))
        with contextlib.suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        memory[: len(header)] = header
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        firsts = [len(header) + offset for offset in offsets]
        self._views = [
            whole[first : first + entry.bytes].view(entry.dtype) for entry, first in zip(entries, firsts, strict=True)
        ]
        self._entries, self._staged = entries, Staged(memoryview(memory), len(header) + end)


def _entry(fragment: Fragment) -> _Entry:
    values = fragment.values
    return _Entry(fragment.name, fragment.kind, fragment.start, fragment.shape, values.dtype, values.numel())


def _places(entries: list[_Entry]) -> tuple[list[int], int]:
    """Where each one's values begin behind the header, those of wide types first, and where the last ends."""
    offsets, end = [0] * len(entries), 0
    for number in sorted(range(len(entries)), key=lambda number: -entries[number].dtype.itemsize):
        offsets[number] = end
        end += entries[number].bytes
    return offsets, end


def _header(entries: list[_Entry], offsets: list[int]) -> bytes:
    """The beginning of a safetensors file: eight bytes of length, and JSON with blanks up to a whole page."""
    index = [{"name": entry.name, "kind": entry.kind, "start": entry.start, "shape": entry.shape} for entry in entries]
    body: dict[str, Any] = {"__metadata__": {INDEX: json.dumps(index)}}
    for number, (entry, offset) in enumerate(zip(entries, offsets, strict=True)):
        body[f"{number:06d}"] = {
            "dtype": _NAMES[entry.dtype],
            "shape": [entry.size],
            "data_offsets": [offset, offset + entry.bytes],
        }
    text = json.dumps(body).encode()
    padded = text.ljust(_whole_pages(8 + len(text)) - 8)
    return len(padded).to_bytes(8, "little") + padded


def _whole_pages(size: int) -> int:
    return max(PAGE_BYTES, -(-size // PAGE_BYTES) * PAGE_BYTES)

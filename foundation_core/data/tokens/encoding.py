"""Texts to tokens in bulk: a column of texts becomes a column of token lists, without an object for each token.

The ids are those of the `tokenizers` library, which decodes and answers for single texts. `fastokens` encodes byte-pair
tokenizers of the form that is trained here many times faster, and a test holds the two equal; others are left to the
library itself.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import fastokens
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from foundation_core.data.tokens.byte_level import END_ID, load_tokenizer, untrained

_END = struct.pack("<I", END_ID)


def encode_texts(tokenizer: Path, texts: pa.ChunkedArray) -> pa.LargeListArray:
    """The tokens of each text (large_list of int32), its end token included.

    Args:
        tokenizer: its file, which `load_tokenizer` can read.
    """
    data, bounds = _encoder(tokenizer)(texts.to_pylist())
    ids = memoryview(data)
    ends = struct.unpack(f"<{len(texts) + 1}Q", bounds)
    with_ends = b"".join(part for first, last in pairwise(ends) for part in (ids[4 * first : 4 * last], _END))
    values = pa.Array.from_buffers(pa.int32(), len(with_ends) // 4, [None, _buffer(with_ends)])
    offsets = pa.Array.from_buffers(pa.int64(), len(ends), [None, _buffer(bounds)])
    return pa.LargeListArray.from_arrays(pc.add(offsets, pa.array(range(len(ends)), pa.int64())), values)


@lru_cache(maxsize=1)
def _encoder(path: Path) -> Callable[[list[str]], tuple[bytes, bytes]]:
    """Texts to their ids, one behind the other (uint32), and where each text's begin (uint64)."""
    if _form(path.read_text("utf-8")) == _form(untrained().to_str()):
        fast = fastokens.Tokenizer.from_file(str(path))
        # what spells a special token out is text
        return lambda texts: fast.encode_batch_flat(texts, split_special_tokens=True)
    return partial(_encode, load_tokenizer(path))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[bytes, bytes]:
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    ends = accumulate(map(len, ids), initial=0)
    return b"".join(array("I", row).tobytes() for row in ids), array("Q", ends).tobytes()


def _form(file: str) -> Any:
    """How a tokenizer cuts and spells, without what it has learned."""
    body = json.loads(file)
    return {**body, "added_tokens": [], "model": {**body["model"], "vocab": {}, "merges": []}}


def _buffer(data: bytes) -> Any:
    return pa.py_buffer(data)

"""Packed files give what went in, whole or not at all, and never more than the bound."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import tracemalloc
from collections.abc import Callable
from typing import BinaryIO

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.data.reading.unpacking import FREE_BYTES, is_packed, open_unpacked, unpacked

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstd.compress,
    ".xz": lzma.compress,
}
MOST = 10_000_000
every_packing = pytest.mark.parametrize("ending", PACK)
endings = st.sampled_from(sorted(PACK))


def _streamed(name: str, data: bytes, most_expansion: int = 100) -> bytes:
    return open_unpacked(name, io.BytesIO(data), most_expansion).read()


def _outcome(read: Callable[[], bytes]) -> bytes | str:
    try:
        return read()
    except ValueError as error:
        return str(error)


@given(st.binary(max_size=3000), endings)
def test_what_was_packed_comes_back_at_once_and_piece_by_piece(data: bytes, ending: str) -> None:
    packed = PACK[ending](data)
    assert unpacked(f"a.txt{ending.upper()}", packed, MOST) == ("a.txt", data)
    file = open_unpacked(f"a.txt{ending}", io.BytesIO(packed), 100)
    assert b"".join(iter(lambda: file.read(7), b"")) == data


@every_packing
@pytest.mark.parametrize("inner", PACK)
def test_one_packing_within_another_is_unpacked_and_a_third_is_refused(ending: str, inner: str) -> None:
    data = PACK[ending](PACK[inner](b"text"))
    assert unpacked(f"a.b.csv{inner}{ending}", data, MOST) == ("a.b.csv", b"text")
    assert _streamed(f"a{inner}{ending}", data) == b"text"
    with pytest.raises(ValueError, match="packed 3 times; allowed: 2"):
        unpacked(f"a.gz{inner}{ending}", data, MOST)


def test_a_name_without_such_an_ending_is_left_as_it_is() -> None:
    raw = io.BytesIO(b"text")
    assert unpacked("a.gz.txt", b"text", 1) == ("a.gz.txt", b"text")
    assert open_unpacked("a.txt", raw, 2) is raw
    assert [is_packed(name) for name in ("a.GZ", "a.zst", "a.xz", "a.bz2", "gz")] == [True, True, True, False, False]


@every_packing
def test_several_members_are_one_file_across_the_borders_of_what_is_read_at_once(ending: str) -> None:
    parts = [random.Random(number).randbytes(65_500 + number) for number in range(4)]
    packed = b"".join(map(PACK[ending], [*parts, b""]))
    assert unpacked(f"a{ending}", packed, MOST)[1] == b"".join(parts)
    assert _streamed(f"a{ending}", packed) == b"".join(parts)


@given(endings, st.data())
def test_a_file_cut_at_any_byte_is_refused_with_the_place(ending: str, data: st.DataObject) -> None:
    packed = PACK[ending](b"some text, some text, some more text")
    place = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(ValueError, match=rf"truncated .* (byte {place}, within|empty)|not \w+: it begins with"):
        unpacked(f"a{ending}", packed[:place], MOST)


@every_packing
def test_a_second_member_that_is_cut_is_refused_with_both_places(ending: str) -> None:
    packed = PACK[ending](b"text")
    whole = packed + packed[:-1]
    with pytest.raises(ValueError, match=f"ends at byte {len(whole)}, within the part that began at {len(packed)}$"):
        _streamed(f"a{ending}", whole)


@every_packing
def test_what_stands_behind_the_end_is_refused_with_its_place(ending: str) -> None:
    packed = PACK[ending](b"text")
    with pytest.raises(ValueError, match=f"behind its end, at byte {len(packed)}, stands 72 75 62 62"):
        unpacked(f"a{ending}", packed + b"rubbish", MOST)


def test_zeros_fill_up_gzip_and_xz_but_not_zstd() -> None:
    for ending in (".gz", ".xz"):
        assert unpacked(f"a{ending}", PACK[ending](b"text") + bytes(100_000), MOST)[1] == b"text"
    with pytest.raises(ValueError, match="stands 00 00 00 00"):
        unpacked("a.zst", PACK[".zst"](b"text") + bytes(8), MOST)


@given(endings, st.data())
def test_a_file_with_a_byte_changed_gives_bytes_or_a_reason(ending: str, data: st.DataObject) -> None:
    packed = bytearray(PACK[ending](b"some text, some text, some more text" * 5))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    outcomes = [_outcome(lambda: unpacked(f"a{ending}", bytes(packed), MOST)[1]) for _ in range(2)]
    assert outcomes[0] == outcomes[1] == _outcome(lambda: _streamed(f"a{ending}", bytes(packed)))


@every_packing
def test_another_file_with_that_ending_is_refused_with_what_it_begins_with(ending: str) -> None:
    with pytest.raises(ValueError, match=r"^not \w+: it begins with 50 4b 03 04$"):
        unpacked(f"a{ending}", b"PK\x03\x04....", MOST)


def test_a_file_that_needs_more_memory_than_a_decoder_may_have_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.content_size_flag: 0}
    sink = io.BytesIO()
    with zstd.ZstdFile(sink, "w", options=options) as file:
        file.write(b"text" * 1000)
        file.write(b"more")
    with pytest.raises(ValueError, match="within 128 MiB of memory"):
        unpacked("a.zst", sink.getvalue(), MOST)


@every_packing
def test_a_bomb_is_refused_within_the_bound_and_what_fits_is_not(ending: str) -> None:
    zeros = bytes(100_000_000)
    bomb = PACK[ending](PACK[ending](zeros)) if ending != ".zst" else PACK[ending](zeros)
    layers = ending * (1 if ending == ".zst" else 2)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="unpacks to more than 2000000 bytes"):
            unpacked(f"a{layers}", bomb, 2_000_000)
        with pytest.raises(ValueError, match="unpacks to more than 100 times its size"):
            _read_on(open_unpacked(f"a{layers}", io.BytesIO(bomb), 100))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20_000_000  # of xz, 8 MiB are its dictionary
    assert unpacked(f"a{layers}", bomb, len(zeros))[1] == zeros
    assert len(_streamed(f"a{ending}", PACK[ending](bytes(FREE_BYTES)))) == FREE_BYTES


def _read_on(file: BinaryIO) -> None:
    while file.read(10_000):
        pass

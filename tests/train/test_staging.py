"""The file that is made by hand is one that safetensors reads, and on disk it is what its hash says."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from foundation_core.train import writer
from foundation_core.train.fragments import WEIGHT, Fragment, StateFiles
from foundation_core.train.staging import PAGE_BYTES, Staging
from foundation_core.train.writer import Background, hash_file, write_hashed

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)


def _fragments(sizes: list[tuple[int, torch.dtype]]) -> Callable[[], list[Fragment]]:
    made = []
    for number, (size, dtype) in enumerate(sizes):
        values = (torch.arange(size) % 97 + number).to(dtype)
        made.append(Fragment(f"layer.{number}.weight", WEIGHT, 0, values, (size,)))
    return lambda: made


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(TYPES)), max_size=9))
def test_safetensors_reads_what_was_staged(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, torch.dtype]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "staged.safetensors"
    fragments = _fragments(sizes)
    staged = Staging().copy(fragments)
    assert len(staged.memory) % PAGE_BYTES == 0
    assert staged.size <= len(staged.memory)
    digest = write_hashed(path, staged)
    assert path.stat().st_size == staged.size
    assert hash_file(path) == digest
    theirs = load_file(path)
    ours = StateFiles([path])
    for number, fragment in enumerate(fragments()):
        read = theirs[f"{number:06d}"]
        assert read.dtype == fragment.values.dtype
        assert torch.equal(read, fragment.values)
        if len(fragment.values):
            assert torch.equal(ours.read(fragment.name, WEIGHT), fragment.values)


def test_other_fragments_get_other_memory_and_the_same_ones_the_same() -> None:
    staging = Staging()
    first = staging.copy(_fragments([(5000, torch.float32)])).memory
    assert staging.copy(_fragments([(5000, torch.float32)])).memory is first
    for other in ([(5001, torch.float32)], [(5000, torch.bfloat16)], [(5000, torch.float32)] * 2, []):
        before = staging.copy(_fragments([(5000, torch.float32)])).memory
        assert staging.copy(_fragments(other)).memory is not before


def test_a_file_system_without_direct_writes_gets_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = Staging().copy(_fragments([(70_001, torch.float32), (3, torch.uint8)]))
    digest = write_hashed(tmp_path / "direct", staged)
    plain = os.open

    def refuses(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return plain(path, flags, *rest)

    monkeypatch.setattr(writer.os, "open", refuses)
    assert write_hashed(tmp_path / "plain", staged) == digest
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "direct").read_bytes()


def test_one_changed_bit_changes_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "file"
    digest = write_hashed(path, Staging().copy(_fragments([(9999, torch.float32)])))
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    assert hash_file(path) != digest


def test_the_thread_steps_aside_and_the_training_does_not() -> None:
    background = Background("a test")
    thread = background.start(threading.get_native_id).result()
    assert os.getpriority(os.PRIO_PROCESS, thread) == 19
    assert background.start(lambda: os.getpriority(os.PRIO_PROCESS, 0)).result() == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19 or os.getpriority(os.PRIO_PROCESS, 0) == 19
    background.close()

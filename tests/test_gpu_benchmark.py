"""The benchmark of GPUs: it runs with torch, pyarrow and pydantic alone, and its kernels' rules are the model's."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.gpu.cards import PEAKS, peak_of
from benchmarks.gpu.measure import SCORED_TOKENS, TINY, PieceWise, Setting, fitting_rows, nats, write
from benchmarks.gpu.packed import Kernel, document_ends, flex, read_packed
from foundation_core.errors import SetupError
from foundation_core.model.attention import attend
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec
from tests.architecture.test_library_alone import FORBIDDEN

ROOT = Path(__file__).parents[1]
ALSO = ("tokenizers", "fastokens", "orjson", "jinja2", "charset_normalizer", "numba", "triton")
BLOCK = f"""
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_allowed(name, path=None, target=None):
    return None if name.partition(".")[0] in {FORBIDDEN + ALSO!r} else find(name, path, target)

PathFinder.find_spec = find_allowed
sys.argv = ["gpu", "--seconds", "0.1"]
import benchmarks.gpu.__main__ as gpu
sys.exit(gpu.main())
"""


def by_documents(segment_BT: Tensor) -> Kernel:
    """What FlashAttention does with the ends of documents, by the definition: the GPU's kernel does not run here."""
    ends = document_ends(segment_BT).tolist()

    def kernel(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE))
        parts = []
        for first, last in pairwise(ends):
            length = last - first
            one = [x[first:last].transpose(0, 1)[None] for x in (q, k, v)]
            parts.append(attend(*one, torch.ones(length, length, dtype=torch.bool).tril())[0].transpose(0, 1))
        return torch.cat(parts).unflatten(0, segment_BT.shape).transpose(1, 2)

    return kernel


def eager_flex(segment_BT: Tensor) -> Kernel:
    """FlexAttention as torch computes it without a compiler."""
    return flex(segment_BT, compiled=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the full size would run")
def test_it_runs_with_torch_pyarrow_and_pydantic_alone() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BLOCK], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout.splitlines()[-1])
    assert body["means_something"] is False
    assert "the figures mean nothing" in done.stdout
    assert body["tokens_per_second"] > 0


def test_several_ranks_are_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, env={"WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "one process" in done.stderr


@torch.no_grad()  # FlexAttention has no backward pass on a CPU
@pytest.mark.parametrize("make_kernel", [by_documents, eager_flex])
def test_a_packed_model_reads_what_the_mask_lets_it_read(tmp_path: Path, make_kernel: object) -> None:
    windows = write(tmp_path / "rows", TINY)
    model = initialize(build(TINY.model, SampleShape(vocabulary=TINY.vocabulary)), 0)
    example = NextToken().prepare({name: x.long() for name, x in windows.gather(torch.arange(3)).items()}, 0)
    assert len(example.inputs["layout"].segment.unique()) > 2
    expected, names = model(**example.inputs), list(model.state_dict())
    loss = NextToken().loss(model, example)
    read_packed(model, make_kernel)  # type: ignore[arg-type]
    assert list(model.state_dict()) == names
    assert torch.allclose(model(**example.inputs), expected, atol=1e-5)
    assert torch.allclose(PieceWise(nats).loss(model, example), loss, rtol=1e-5)
    read_packed_as_one = by_documents(torch.zeros_like(example.inputs["layout"].segment))  # negative control
    model.trunk.make_kernel = lambda segment: read_packed_as_one
    assert not torch.allclose(model(**example.inputs), expected, atol=1e-3)


def test_a_trunk_with_other_masks_is_refused() -> None:
    model = build(ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2, position="alibi")), SampleShape(vocabulary=8))
    with pytest.raises(SetupError, match="masks that the kernels"):
        read_packed(model, eager_flex)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_ends_of_documents_are_those_of_their_lengths(rows: list[list[int]]) -> None:
    width = max(map(sum, rows))
    lengths = [[*row, width - sum(row)] if sum(row) < width else row for row in rows]  # the rest is padding
    segment = torch.tensor(
        [[-1 if at == len(row) else at for at, length in enumerate(full) for _ in range(length)]
         for row, full in zip(rows, lengths, strict=True)]
    )  # fmt: skip
    expected = torch.tensor([0, *[length for row in lengths for length in row]]).cumsum(0)
    assert document_ends(segment).tolist() == expected.tolist()


def test_pieces_of_a_loss_are_many_at_the_full_size() -> None:
    assert 4 * Setting().context_tokens >= SCORED_TOKENS > TINY.context_tokens


def test_the_full_size_is_350_m_and_its_micro_batch_fits_the_memory() -> None:
    assert Setting().size.parameters == pytest.approx(350e6, rel=0.02)
    rows = [fitting_rows(Setting(), memory * 10**9, fused=True) for memory in (16, 24, 48, 80, 141)]
    assert rows == sorted(rows)
    assert rows[3] >= 8


@pytest.mark.parametrize(
    ("name", "known"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-80GB", "A100"),
     ("NVIDIA L40S", "L40S"), ("NVIDIA L4", "L4"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("Something new", None)],
)  # fmt: skip
def test_a_card_is_known_by_its_name(name: str, known: str | None) -> None:
    assert peak_of(name) == (PEAKS[known] if known else None)

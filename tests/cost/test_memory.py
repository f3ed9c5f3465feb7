"""Memory by arithmetic: shares add up to the whole, and what autograd saves is what was said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.forecast.ranks import Case, measure
from foundation_core.cost.memory import Memory, checkpoint_bytes, memory_of, state_shares
from foundation_core.cost.size import size_of
from foundation_core.shape import SampleShape
from foundation_core.specs import PretrainSpec

VOCABULARY = 512


def _spec(precision: str = "float32", rows: int = 4, ranks: int = 1, **trunk: Any) -> PretrainSpec:
    trunk = {"width": 64, "depth": 2, "heads": 2, **trunk}
    model = {"context_tokens": 64, "trunk": trunk, "tie_embeddings": False}
    body = {"model": model, "batch_rows": rows * ranks, "micro_batch_rows": rows, "workers": ranks, "engine": "torch"}
    return PretrainSpec.model_validate({**body, "precision": precision})


def _memory(spec: PretrainSpec, *, recomputed: bool = False, fused_attention: bool = False) -> Memory:
    size = size_of(spec.model, SampleShape(vocabulary=VOCABULARY))
    return memory_of(spec, size, VOCABULARY, 64, fused_attention=fused_attention, recomputed=recomputed)


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "trunk",
    [{}, {"feed": "swiglu", "depth": 3, "kv_heads": 1, "qk_norm": True, "width": 128}],
    ids=["plain", "with parts"],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_a_training_holds_is_what_was_said(precision: str, trunk: dict[str, Any]) -> None:
    spec = _spec(precision, **trunk)
    found, said = measure(Case(spec.model_dump_json(), VOCABULARY, 0)), _memory(spec)
    logits = 4 * VOCABULARY * 4 * 64
    assert said.state == pytest.approx(found["backward"], rel=0.02)
    assert said.weights + said.optimizer == pytest.approx(found["rest"], rel=0.02)
    assert said.activations + logits == pytest.approx(found["saved"], rel=0.15)
    deeper = _memory(_spec(precision, **{**trunk, "depth": 2 * spec.model.trunk.depth}))
    assert deeper.activations + logits != pytest.approx(found["saved"], rel=0.15)  # negative control


@given(
    stage=st.integers(0, 3),
    ranks=st.integers(1, 2048),
    precision=st.sampled_from(["float32", "bf16"]),
    parameters=st.integers(1000, 10**12),
)
def test_all_ranks_together_hold_everything(stage: int, ranks: int, precision: str, parameters: int) -> None:
    spec = PretrainSpec.model_validate({"zero_stage": stage, "workers": ranks, "precision": precision})
    alone = state_shares(spec.model_copy(update={"workers": 1}), parameters)
    shares = state_shares(spec, parameters)
    sharded = (stage >= 3, stage >= 1, stage >= 1)
    for share, whole, is_sharded in zip(shares, alone, sharded, strict=True):
        assert share * (ranks if is_sharded else 1) == pytest.approx(whole, abs=ranks)


def test_each_zero_stage_shards_more_of_what_is_held_at_a_time() -> None:
    large = {"width": 4096, "heads": 32, "depth": 32}
    ways = [
        _spec("bf16", ranks=64, **large).model_copy(update={"engine": "deepspeed", "zero_stage": n}) for n in range(4)
    ]
    totals = [_memory(spec).total for spec in ways]
    assert totals == sorted(totals, reverse=True)
    assert _memory(ways[3]).state < _memory(ways[2]).state < _memory(ways[0]).state


@given(rows=st.integers(1, 64), depth=st.integers(1, 24))
def test_activations_go_with_the_rows_and_recomputation_keeps_one_block(rows: int, depth: int) -> None:
    spec, one = _spec(rows=rows, depth=depth), _spec(rows=1, depth=depth)
    assert _memory(spec).activations == rows * _memory(one).activations
    saved = _memory(spec).activations - _memory(spec, recomputed=True).activations
    block = _memory(_spec(rows=rows, depth=depth + 1)).activations - _memory(spec).activations
    assert saved == (depth - 1) * block - depth * rows * 64 * 4 * 64


def test_attention_that_is_fused_keeps_no_matrix() -> None:
    plain, fused = _memory(_spec("bf16")), _memory(_spec("bf16"), fused_attention=True)
    assert plain.activations - fused.activations == 2 * 4 * 64 * (1 + 2 * 2) * 64


def test_a_checkpoint_holds_weights_once_and_the_optimizer_however_many_ranks_write_it() -> None:
    one = PretrainSpec.model_validate({"precision": "bf16", "workers": 1})
    many = one.model_copy(update={"workers": 512, "zero_stage": 3})
    assert checkpoint_bytes(one, 1000) == checkpoint_bytes(many, 1000) == 14_000

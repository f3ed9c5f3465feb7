"""Memory by arithmetic: shares add up to the whole, and what autograd saves is what was said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.forecast.ranks import Case, measure
from foundation_core.cost.flops import counted
from foundation_core.cost.memory import Memory, checkpoint_bytes, memory_of, state_shares
from foundation_core.cost.size import Size, size_of
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, OptimizerSpec, PretrainSpec, TrunkSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.fragments import STEP
from foundation_core.train.optimizer import block_matrices
from foundation_core.train.step import train_step

VOCABULARY = 512


def _spec(precision: str = "float32", rows: int = 4, ranks: int = 1, **trunk: Any) -> PretrainSpec:
    trunk = {"width": 64, "depth": 2, "heads": 2, **trunk}
    model = {"context_tokens": 64, "trunk": trunk, "tie_embeddings": False}
    model |= {"family": "mixture"} if "experts" in trunk else {}
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
    [
        {},
        {"feed": "swiglu", "depth": 3, "kv_heads": 1, "qk_norm": True, "width": 128},
        {"attention_dropout": 0.1, "heads": 8},
        {"experts": 4, "experts_per_token": 3},
    ],
    ids=["plain", "with parts", "weights are dropped", "experts"],
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
    size = Size(parameters, parameters, parameters, 0, parameters // 2)
    alone = state_shares(spec.model_copy(update={"workers": 1}), size)
    shares = state_shares(spec, size)
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


def _written(spec: PretrainSpec) -> int:
    """Bytes of all values that the plain engine gives to a checkpoint after a step."""
    torch.manual_seed(0)
    model = initialize(build(spec.model, SampleShape(vocabulary=VOCABULARY)), 0)
    engine = TorchEngine(model, EngineRequest(spec.optimizer, spec.precision, spec.micro_batch_rows))
    tokens = torch.randint(VOCABULARY, (2, 65))
    rows = {"tokens": tokens, "segment": torch.zeros_like(tokens), "position": torch.arange(65).repeat(2, 1)}
    train_step(engine, NextToken(), [rows], 1e-3, 0)
    parts = [part for part in engine.fragments() if part.kind != STEP]
    return sum(part.values.numel() * part.values.element_size() for part in parts)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_checkpoint_holds_weights_once_and_averages_however_many_ranks_write_it(precision: str, kind: Any) -> None:
    one = _spec(precision).model_copy(update={"optimizer": OptimizerSpec(kind=kind)})
    size = size_of(one.model, SampleShape(vocabulary=VOCABULARY))
    assert checkpoint_bytes(one, size) == _written(one)
    many = one.model_copy(update={"engine": "deepspeed", "workers": 512, "zero_stage": 3})
    assert checkpoint_bytes(many, size) == checkpoint_bytes(one, size)


@pytest.mark.usefixtures("one_thread")
def test_muon_keeps_one_average_of_the_matrices_that_it_moves() -> None:
    spec = _spec().model_copy(update={"optimizer": OptimizerSpec(kind="muon")})
    found, said = measure(Case(spec.model_dump_json(), VOCABULARY, 0)), _memory(spec)
    assert said.state == pytest.approx(found["backward"], rel=0.02)
    assert _memory(_spec()).state != pytest.approx(found["backward"], rel=0.02)  # negative control: AdamW's


@pytest.mark.parametrize("family", ["decoder", "mixture", "encoder_decoder", "dual_encoder"])
def test_what_is_counted_as_muons_is_what_muon_moves(family: str) -> None:
    trunk = TrunkSpec(width=48, depth=2, heads=4, kv_heads=2, experts=4 if family == "mixture" else 0)
    spec, shape = ModelSpec(family=family, trunk=trunk), SampleShape(300, 1, 8, 8)
    with torch.device("meta"):
        model = build(spec, shape)
    moved = sum(matrix.numel() for matrix in block_matrices(model))
    assert size_of(spec, shape).in_blocks == counted(spec, shape).in_blocks == moved > 0

"""How blocks are run changes the memory of a step and nothing that it computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.experts import take_routing
from foundation_core.specs import ModelSpec, OptimizerSpec
from foundation_core.train.blocks import blocks_of, checkpoint_activations, compile_blocks
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.step import train_step
from tests.golden.test_family_losses import FAMILIES, TRUNK, batch
from tests.support.training import tiny_model

DROPOUTS = ("dropout", "embedding_dropout", "attention_dropout")
Change = Callable[[nn.Module], None]


def _as_built(model: nn.Module) -> None:
    """Nothing is changed."""


def _trained(name: str, change: Change, dropout: float = 0.0) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of three steps of a family."""
    family, trunk = FAMILIES[name], TRUNK.model_copy(update=dict.fromkeys(DROPOUTS, dropout))
    spec = ModelSpec(**{"trunk": trunk, "context_tokens": 32, **family.model})
    model = initialize(build(spec, family.shape), seed=0)
    change(model)
    engine = TorchEngine(model, EngineRequest(OptimizerSpec(lr=5e-3)))
    torch.manual_seed(0)
    losses = [train_step(engine, family.objective, [batch(n, family.shape)], 5e-3, seed=0).loss for n in range(3)]
    return losses, engine.weights()


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointed_blocks_learn_the_same_to_the_bit(name: str) -> None:
    losses, weights = _trained(name, _as_built)
    again, again_weights = _trained(name, checkpoint_activations)
    assert again == losses
    assert all(torch.equal(weights[key], again_weights[key]) for key in weights)


def test_what_dropout_drops_is_dropped_again_when_a_block_is_computed_again() -> None:
    losses, weights = _trained("prefix", _as_built, dropout=0.5)
    again, again_weights = _trained("prefix", checkpoint_activations, dropout=0.5)
    assert again == losses != _trained("prefix", _as_built)[0]
    assert all(torch.equal(weights[key], again_weights[key]) for key in weights)


def _kept_bytes(change: Change, depth: int) -> int:
    """What autograd keeps between the forward and the backward pass, weights aside."""
    model = tiny_model()
    model.trunk.blocks = nn.ModuleList(list(model.trunk.blocks) * (depth // 2))
    change(model)
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        output = model(torch.arange(48).view(4, 12))
    del output
    return sum(kept.values())


def test_a_checkpointed_block_keeps_its_input_alone() -> None:
    """So a block more costs (4, 12, 16) float32 numbers; as built, more than ten times as much."""
    per_block = [_kept_bytes(change, 8) - _kept_bytes(change, 4) for change in (checkpoint_activations, _as_built)]
    assert per_block[0] == 4 * (4 * 12 * 16 * 4)
    assert per_block[1] > 10 * per_block[0]


def test_without_gradients_a_checkpointed_block_runs_once() -> None:
    model = tiny_model()
    runs: list[int] = []
    for block in blocks_of(model):
        block.register_forward_pre_hook(lambda *_: runs.append(1))
    checkpoint_activations(model)
    with torch.no_grad():
        model(torch.arange(12)[None])
    assert len(runs) == 2


def test_names_and_weights_stay() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint_activations(model)
    compile_blocks(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["prefix", "mixture", "captioner"])
def test_compiled_blocks_learn_the_same(name: str) -> None:
    losses, weights = _trained(name, _as_built)
    again, again_weights = _trained(name, compile_blocks)
    assert again == pytest.approx(losses, rel=1e-5)
    assert again_weights.keys() == weights.keys()


def test_routers_say_what_they_did_where_blocks_are_checkpointed() -> None:
    family = FAMILIES["mixture"]
    model = initialize(build(ModelSpec(**{"trunk": TRUNK, "context_tokens": 32, **family.model}), family.shape), seed=0)
    checkpoint_activations(model)
    example = family.objective.prepare(batch(0, family.shape), 0)
    loss = family.objective.loss(model, example)
    assert take_routing(model, example.inputs["layout"]) is not None
    loss.backward()
    assert take_routing(model, example.inputs["layout"]) is None, "kept by the blocks that were computed again"

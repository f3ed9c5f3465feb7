"""A state by name: every value is written once and comes back to its place; what is lost or misplaced is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from foundation_core.errors import CheckpointError, Stopped
from foundation_core.specs import OptimizerSpec
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.fragments import WEIGHT, StartingWeights, StateSource, check_shapes, share_out, whole
from foundation_core.weights import weights_hash
from tests.support.training import Trained, Training

STOP, STEPS = 4, 12


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 9))
def test_shares_of_all_ranks_are_the_whole_in_order_and_alike_in_size(sizes: list[int], world: int) -> None:
    everything = [whole(str(number), WEIGHT, torch.rand(size)) for number, size in enumerate(sizes)]
    shares = [list(share_out(everything, rank, world)) for rank in range(world)]
    for fragment in everything:
        parts = [part for share in shares for part in share if part.name == fragment.name]
        assert [part.start for part in parts] == [sum(p.values.numel() for p in parts[:n]) for n in range(len(parts))]
        assert torch.equal(torch.cat([torch.empty(0), *(part.values for part in parts)]), fragment.values)
    counts = [sum(part.values.numel() for part in share) for share in shares]
    assert max(counts) - min(counts) <= 1


def test_a_share_is_the_engines_own_memory() -> None:
    tensor = torch.zeros(10)
    for rank in range(3):
        for part in share_out([whole("a", WEIGHT, tensor)], rank, 3):
            part.values.fill_(rank + 1.0)
    assert tensor.tolist() == [1.0] * 3 + [2.0] * 3 + [3.0] * 4


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"a": (2, 3)}, None),
        ({"a": (3, 2)}, r"it has shape \[2, 3\] of a\n  Allowed: shape \[3, 2\]"),
        ({"a": (2, 3), "b": (1,)}, r"it has none of b\n  Allowed: shape \[1\]"),
        ({}, r"it has shape \[2, 3\] of a\n  Allowed: none"),
    ],
)
def test_a_state_of_another_model_is_refused_by_name(shapes: dict[str, tuple[int, ...]], said: str | None) -> None:
    source = StartingWeights({"a": torch.zeros(2, 3)})
    if said is None:
        check_shapes(source, shapes)
        return
    with pytest.raises(CheckpointError, match=said):
        check_shapes(source, shapes)


def test_an_engine_that_goes_back_to_its_start_has_no_memory_of_what_came_between() -> None:
    module = nn.Linear(3, 2)
    start = {name: value.detach().clone() for name, value in module.state_dict().items()}
    engine = TorchEngine(module, EngineRequest(OptimizerSpec()))

    def two_steps() -> str:
        for _ in range(2):
            engine.backward(module(torch.ones(4, 3)).square().sum(), last=True)
            engine.step(1e-2)
        return weights_hash(engine.weights())

    once, further = two_steps(), two_steps()
    engine.restore(StartingWeights(start))
    assert {fragment.kind for fragment in engine.fragments()} == {WEIGHT}
    assert two_steps() == once != further


class Altered:
    """A state in which something is not as it was saved.

    Args:
        lost: kinds that come back as zeros.
        exchanged: names whose values were written under each other's.
    """

    def __init__(self, source: StateSource, lost: Sequence[str], exchanged: Mapping[str, str]) -> None:
        self._source, self._lost, self._exchanged = source, lost, exchanged

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """As saved."""
        return self._source.shapes()

    def kinds(self, name: str) -> Sequence[str]:
        """As saved."""
        return self._source.kinds(name)

    def read(self, name: str, kind: str, start: int = 0, count: int | None = None) -> Tensor:
        """Perhaps zeros, perhaps another's."""
        values = self._source.read(self._exchanged.get(name, name), kind, start, count)
        return torch.zeros_like(values) if kind in self._lost else values


@pytest.fixture(scope="module")
def continued(
    token_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str], Mapping[str, str]], Trained]:
    """A training that was stopped and continued from a state in which something was altered."""

    def run(lost: Sequence[str], exchanged: Mapping[str, str]) -> Trained:
        class Continued(TorchEngine):
            def restore(self, source: StateSource) -> None:
                super().restore(Altered(source, lost, exchanged))

        asked = iter(range(1, STEPS + 1))
        folder = tmp_path_factory.mktemp("continued")
        training = Training(folder, token_corpus, engine=Continued, steps=STEPS, verify_outputs=False)
        with suppress(Stopped):
            training.run(lambda: next(asked) == STOP)
            raise AssertionError("it was not stopped")
        return training.run()

    return run


@pytest.fixture(scope="module")
def intact(continued: Callable[[Sequence[str], Mapping[str, str]], Trained]) -> Trained:
    return continued([], {})


@pytest.mark.parametrize(
    ("lost", "exchanged", "felt"),
    [
        (["exp_avg", "exp_avg_sq", "step"], False, 1e-2),
        (["exp_avg"], False, 1e-3),
        (["step"], False, 1e-3),
        ([], True, 1e-3),
    ],
)
def test_what_is_lost_or_misplaced_is_felt_in_the_losses(
    continued: Callable[[Sequence[str], Mapping[str, str]], Trained],
    intact: Trained,
    lost: Sequence[str],
    exchanged: bool,
    felt: float,
) -> None:
    """The control beside the equalities: their bound is 1e-5."""
    names = [name for name, values in intact.weights.items() if values.shape == (16, 16)]
    swap = {names[0]: names[-1], names[-1]: names[0]} if exchanged else {}
    found = continued(lost, swap)
    assert all(found.losses[step] == intact.losses[step] for step in range(1, STOP + 1))
    assert max(abs(found.losses[step] / intact.losses[step] - 1) for step in range(STOP + 1, STEPS + 1)) > felt

"""Vectors of runs of tokens: what a run is, where it ends, and that writing token by token finds the same ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foundation_core.generation.makes import plan_of
from foundation_core.model.attention import Cache
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import Layout, sequential
from foundation_core.model.stems import Runs
from foundation_core.model.transformer import Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, RunsSpec, TrunkSpec

V, D, T = 19, 16, 12
SPEC = ModelSpec(trunk=TrunkSpec(width=D, depth=2, heads=2), context_tokens=T, runs=RunsSpec(lengths=(2, 3), rows=4099))
TOKENS = torch.randint(V, (3, T), generator=torch.Generator().manual_seed(0))


def runs(*lengths: int) -> Runs:
    """Tables of random rows."""
    torch.manual_seed(1)
    return Runs(lengths, 4099, D)


def vectors(part: Runs, tokens: Tensor) -> Tensor:
    """Of rows that are documents."""
    return part(tokens, sequential(tokens).position)


def model(spec: ModelSpec = SPEC) -> Model:
    """A decoder whose tables are not empty."""
    made = initialize(build(spec, SampleShape(vocabulary=V)), 0)
    assert isinstance(made, Model)
    for part in made.modules():
        if isinstance(part, Runs):
            nn.init.normal_(part.tables[0].weight)
            nn.init.normal_(part.tables[1].weight)
    return made.eval()


@torch.no_grad()
def test_a_vector_tells_of_the_run_that_ends_with_the_token_and_of_nothing_else() -> None:
    part = runs(3)
    for changed in range(T):
        other = TOKENS.clone()
        other[:, changed] = (other[:, changed] + 1) % V
        moved = (vectors(part, TOKENS) != vectors(part, other)).any(dim=-1).all(dim=0)
        assert moved.nonzero().flatten().tolist() == list(range(changed, min(T, changed + 3)))


@torch.no_grad()
def test_the_order_of_a_runs_tokens_matters() -> None:
    one, other = torch.tensor([[3, 5]]), torch.tensor([[5, 3]])
    assert not torch.equal(vectors(runs(2), one)[:, -1], vectors(runs(2), other)[:, -1])


@torch.no_grad()
def test_a_run_does_not_reach_into_the_document_before() -> None:
    part, position = runs(2, 3), torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]]).expand(3, -1)
    packed, apart = part(TOKENS, position), vectors(part, TOKENS[:, 5:])
    assert torch.equal(packed[:, 5:], apart)
    assert not torch.equal(vectors(part, TOKENS)[:, 5:], apart), "without positions it would"


@torch.no_grad()
def test_written_token_by_token_it_is_the_same_model() -> None:
    decoder, cache = model(), Cache(2, T)
    whole = decoder(TOKENS)
    parts = [decoder(TOKENS[:, :4], cache=cache)]
    parts += [decoder(TOKENS[:, place : place + 1], cache=cache) for place in range(4, T)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    forgetful = Cache(2, T)
    decoder(TOKENS[:, :4], cache=forgetful)
    assert forgetful.tokens is not None
    forgetful.tokens = torch.zeros_like(forgetful.tokens)
    assert (decoder(TOKENS[:, 4:5], cache=forgetful) - whole[:, 4:5]).abs().max() > 1e-2


@torch.no_grad()
def test_rows_that_change_places_keep_their_runs() -> None:
    decoder, cache, order = model(), Cache(2, T), torch.tensor([2, 0, 1])
    decoder(TOKENS[:, :6], cache=cache)
    cache.select(order)
    after = decoder(TOKENS[order, 6:7], cache=cache)
    torch.testing.assert_close(after, decoder(TOKENS)[order, 6:7], atol=1e-5, rtol=1e-5)


def test_fresh_tables_say_nothing_and_learn() -> None:
    fresh = initialize(build(SPEC, SampleShape(vocabulary=V)), 0)
    plain = initialize(build(SPEC.model_copy(update={"runs": RunsSpec()}), SampleShape(vocabulary=V)), 0)
    assert torch.equal(fresh(TOKENS), plain(TOKENS))
    fresh(TOKENS).sum().backward()
    assert all(table.weight.grad.abs().max() > 0 for table in fresh.stem.runs.tables)


def test_they_are_left_to_torch_where_a_step_is_compiled() -> None:
    assert plan_of(model()) is None
    assert plan_of(model(SPEC.model_copy(update={"runs": RunsSpec()}))) is not None


def test_a_layout_with_padding_in_front_gives_the_same_vectors() -> None:
    part, padded = runs(2, 3), torch.nn.functional.pad(TOKENS, (2, 0), value=7)
    position = torch.cat([torch.zeros(3, 2, dtype=torch.int64), sequential(TOKENS).position], dim=1)
    with torch.no_grad():
        assert torch.equal(part(padded, Layout(position).position)[:, 2:], vectors(part, TOKENS))

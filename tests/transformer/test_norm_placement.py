"""Normalisation before attention, after the sum, on the branch: what each of the three promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from foundation_core.model.block import BranchNorm, FeedForward, PostNorm, PreNorm, Residual

WIDTH, BRANCHES = 32, 24
X = torch.randn(4, 6, WIDTH, generator=torch.Generator().manual_seed(0))


def residual(placement: type[Residual], seed: int = 0, loudness: float = 1.0) -> Residual:
    torch.manual_seed(seed)
    part = placement(nn.LayerNorm(WIDTH), FeedForward(WIDTH, 64, nn.GELU()))
    nn.init.normal_(part.branch.out.weight, std=loudness)
    return part


def size(x: Tensor) -> Tensor:
    """Root mean square of each token's features."""
    return x.square().mean(dim=-1).sqrt()


def test_after_the_sum_the_stream_has_size_one_however_loud_the_branch():
    for loudness in (0.1, 100.0):
        stream = residual(PostNorm, loudness=loudness)(X)
        torch.testing.assert_close(size(stream), torch.ones(4, 6), rtol=0, atol=1e-4)
        torch.testing.assert_close(stream.mean(dim=-1), torch.zeros(4, 6), rtol=0, atol=1e-5)


def test_on_the_branch_what_joins_the_stream_has_size_one_however_loud_the_branch():
    for loudness in (1.0, 100.0):
        torch.testing.assert_close(
            size(residual(BranchNorm, loudness=loudness)(X) - X), torch.ones(4, 6), rtol=0, atol=1e-4
        )


def test_before_the_branch_what_joins_the_stream_is_as_loud_as_the_branch():
    quiet, loud = (residual(PreNorm, loudness=loudness)(X) - X for loudness in (1.0, 100.0))
    torch.testing.assert_close(loud, 100 * quiet, rtol=1e-4, atol=1e-3)


def test_before_the_branch_the_size_of_the_stream_does_not_matter_to_what_is_said():
    small, large = (residual(PreNorm)(scale * X) - scale * X for scale in (1.0, 64.0))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-3)
    small, large = (residual(BranchNorm)(scale * X) - scale * X for scale in (1.0, 64.0))
    assert (small - large).abs().max() > 0.1


@pytest.mark.parametrize("placement", [PreNorm, BranchNorm])
def test_around_the_branch_the_gradient_has_a_way_through_that_no_norm_touches(placement: type[Residual]):
    silent = residual(placement, loudness=0.0)
    x = X.clone().requires_grad_()
    weight = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    (silent(x) * weight).sum().backward()
    assert torch.equal(x.grad, weight)


def test_after_the_sum_every_norm_stands_in_the_gradients_way():
    silent = residual(PostNorm, loudness=0.0)
    x = (10 * X).requires_grad_()
    weight = torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    (silent(x) * weight).sum().backward()
    assert size(x.grad).mean() < 0.2 * size(weight).mean()  # divided by the stream's size, which is 10


def test_a_stream_of_many_branches_grows_unless_each_sum_is_normalised():
    grown = {}
    for placement in (PreNorm, PostNorm, BranchNorm):
        x = X
        for seed in range(BRANCHES):
            x = residual(placement, seed)(x)
        grown[placement] = size(x).mean().item()
    assert grown[PostNorm] == pytest.approx(1.0, abs=1e-3)
    assert grown[BranchNorm] == pytest.approx((1 + BRANCHES) ** 0.5, rel=0.15)  # independent branches of size one
    assert grown[PreNorm] > 4

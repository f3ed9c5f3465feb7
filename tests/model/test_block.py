import torch
from torch import nn

from foundation_core.model.block import BranchNorm, FeedForward, GatedFeedForward, PostNorm, PreNorm, SquaredReLU

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def test_squared_relu_is_the_square_of_what_is_positive():
    values = SquaredReLU()(torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0]))
    assert values.tolist() == [0.0, 0.0, 0.0, 0.25, 4.0]


def test_a_gate_multiplies_and_without_it_only_the_activation_stands_between():
    plain, gated = FeedForward(8, 12, nn.SiLU()), GatedFeedForward(8, 12, nn.SiLU())
    assert torch.equal(plain(X), plain.out(nn.functional.silu(plain.up(X))))
    assert torch.equal(gated(X), gated.out(nn.functional.silu(gated.gate(X)) * gated.up(X)))


def test_a_branch_that_writes_nothing_leaves_the_stream_as_it_is_or_normalised():
    silent = FeedForward(8, 12, nn.GELU())
    nn.init.zeros_(silent.out.weight)
    norm = nn.LayerNorm(8)
    assert torch.equal(PreNorm(norm, silent)(X), X)
    assert torch.equal(PostNorm(norm, silent)(X), norm(X))
    assert torch.equal(BranchNorm(norm, silent)(X), X)


def test_the_three_residuals_differ_in_what_they_normalise():
    branch, norm = FeedForward(8, 12, nn.GELU()), nn.LayerNorm(8)
    assert torch.equal(PreNorm(norm, branch)(X), X + branch(norm(X)))
    assert torch.equal(PostNorm(norm, branch)(X), norm(X + branch(X)))
    assert torch.equal(BranchNorm(norm, branch)(X), X + norm(branch(X)))


def test_dropout_drops_the_branch_and_never_the_stream():
    residual = PreNorm(nn.LayerNorm(8), FeedForward(8, 12, nn.GELU()), dropout=1.0)
    assert torch.equal(residual.train()(X), X)
    assert not torch.equal(residual.eval()(X), X)

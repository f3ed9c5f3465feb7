import torch

from foundation_core.model.heads import PooledHead, last_token, mean_of_tokens
from foundation_core.model.layout import PADDING, Layout

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
SEGMENT = torch.tensor([[0, 0, 0, 0, PADDING, PADDING], [PADDING, 3, 3, 3, 3, 3]])


def test_pooling_reads_the_tokens_that_are_there():
    layout = Layout(torch.zeros_like(SEGMENT), SEGMENT)
    for pool, expected in [
        (mean_of_tokens, torch.stack([X[0, :4].mean(0), X[1, 1:].mean(0)])),
        (last_token, torch.stack([X[0, 3], X[1, 5]])),
    ]:
        torch.testing.assert_close(pool(X, layout), expected)
        edited = torch.where((SEGMENT == PADDING)[..., None], 99.0, X)
        torch.testing.assert_close(pool(edited, layout), expected)


def test_without_segments_every_token_is_there():
    layout = Layout(torch.arange(6).expand(2, -1))
    torch.testing.assert_close(mean_of_tokens(X, layout), X.mean(1))
    torch.testing.assert_close(last_token(X, layout), X[:, 5])


def test_a_row_of_padding_pools_to_numbers():
    nothing = Layout(torch.zeros(2, 6), torch.full((2, 6), PADDING))
    assert torch.equal(mean_of_tokens(X, nothing), torch.zeros(2, 8))
    assert last_token(X, nothing).isfinite().all()


def test_a_pooled_head_gives_one_prediction_a_row():
    head = PooledHead(8, classes=3, pool=last_token)
    layout = Layout(torch.arange(6).expand(2, -1))
    assert torch.equal(head(X, layout), head.out(X[:, 5]))

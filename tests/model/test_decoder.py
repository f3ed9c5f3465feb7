import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from foundation_core.model.attention import Cache
from foundation_core.model.layout import Layout, sequential
from foundation_core.model.transformer import Model

Build = Callable[..., Model]
TOKENS = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
VARIANTS = [
    {},
    {"kv_heads": 2, "feed": "swiglu"},
    {"position": "learned", "norm": "layer", "bias": True},
    {"position": "sinusoidal", "feed": "relu2"},
    {"position": "alibi", "residual": "branch"},
    {"position": "relative", "residual": "post", "feed": "relu", "tie_embeddings": False},
    {"position": "none", "qk_norm": True},
    {"experts": 4},
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())) or "usual")
def any_decoder(request: pytest.FixtureRequest, tiny_decoder: Build) -> Model:
    return tiny_decoder(**request.param)


def test_a_fresh_decoder_is_undecided(any_decoder: Model):
    nats = torch.nn.functional.cross_entropy(any_decoder(TOKENS).flatten(0, 1), TOKENS.flip(1).flatten())
    assert abs(nats - torch.tensor(61.0).log()) < 0.4


def test_editing_the_future_leaves_earlier_logits_equal_to_the_bit(any_decoder: Model):
    edited = TOKENS.clone()
    edited[:, 15] = (edited[:, 15] + 1) % 61
    before, after = any_decoder(TOKENS), any_decoder(edited)
    assert torch.equal(before[:, :15], after[:, :15])
    assert (before[:, 15:] - after[:, 15:]).abs().amax(dim=(0, 2)).min() > 1e-4


def test_packed_documents_do_not_read_each_other(any_decoder: Model):
    first, second = TOKENS[:1, :10], TOKENS[1:, :14]
    packed = torch.cat([first, second], dim=1)
    position = torch.cat([torch.arange(10), torch.arange(14)])[None]
    segment = torch.tensor([0] * 10 + [1] * 14)[None]
    alone = torch.cat([any_decoder(first), any_decoder(second)], dim=1)
    together = any_decoder(packed, Layout(position, segment))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # measured: 1e-6

    without_segments = any_decoder(packed, Layout(position))
    torch.testing.assert_close(without_segments[:, :10], alone[:, :10], rtol=0, atol=1e-5)
    assert (without_segments[:, 10:] - alone[:, 10:]).abs().max() > 1e-2


def test_a_row_read_token_by_token_through_a_cache_gives_the_logits_of_the_row_read_at_once(any_decoder: Model):
    cache = Cache(depth=2, capacity_tokens=24)
    parts = [any_decoder(piece, cache=cache) for piece in TOKENS.split([7, 1, 1, 1, 14], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), any_decoder(TOKENS), rtol=0, atol=1e-5)  # measured: 1e-6


def test_the_order_of_words_matters(any_decoder: Model):
    swapped = TOKENS.clone()
    swapped[:, [3, 4]] = TOKENS[:, [4, 3]]
    assert (any_decoder(TOKENS)[:, -1] - any_decoder(swapped)[:, -1]).abs().max() > 1e-5


def test_every_parameter_gets_a_gradient(any_decoder: Model):
    any_decoder(TOKENS).logsumexp(-1).sum().backward()
    for name, parameter in any_decoder.named_parameters():
        if not name.endswith("key.bias"):  # a softmax does not see what is added to all keys alike
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_tied_embeddings_are_one_parameter_with_one_name(tiny_decoder: Build):
    tied, own = tiny_decoder(), tiny_decoder(tie_embeddings=False)
    assert set(own.state_dict()) - set(tied.state_dict()) == {"head.out.weight"}
    assert len(tied.state_dict()) == len(list(tied.parameters()))


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_tied_model_is_tied_to_itself(tiny_decoder: Build, remake: Callable[[Model], Model]):
    model = tiny_decoder()
    other = remake(model)
    with torch.no_grad():
        other.stem.embed.weight.zero_()
    assert other(TOKENS).abs().max() == 0
    assert model(TOKENS).abs().max() > 0


def test_finish_sees_what_the_head_would_have_seen(tiny_decoder: Build):
    model = tiny_decoder()
    last = model(TOKENS, finish=lambda head, x, layout: head(x[:, -1:], layout))
    torch.testing.assert_close(last, model(TOKENS)[:, -1:], rtol=0, atol=1e-6)


def test_without_a_layout_each_row_is_one_document_from_position_0(tiny_decoder: Build):
    model = tiny_decoder()
    assert torch.equal(model(TOKENS), model(TOKENS, sequential(TOKENS)))
    assert not torch.equal(model(TOKENS), model(TOKENS, Layout(torch.zeros_like(TOKENS))))


def test_a_rotary_decoder_does_not_see_where_a_row_begins_and_one_with_a_table_does(tiny_decoder: Build):
    here, later = sequential(TOKENS), sequential(TOKENS, start=20)
    rotary, learned = tiny_decoder(), tiny_decoder(position="learned")
    torch.testing.assert_close(rotary(TOKENS, later), rotary(TOKENS, here), rtol=0, atol=1e-5)  # measured: 1e-6
    assert (learned(TOKENS, later) - learned(TOKENS, here)).abs().max() > 1e-2


def test_bfloat16_weights_and_autocast_stay_near_float32(any_decoder: Model):
    expected = any_decoder(TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = any_decoder(TOKENS).float()
    low = any_decoder.bfloat16()(TOKENS).float()
    torch.testing.assert_close(mixed, expected, rtol=0, atol=0.1)  # measured: 3e-2, of logits up to 3.6
    torch.testing.assert_close(low, expected, rtol=0, atol=0.1)  # measured: 3e-2

from collections.abc import Callable

import torch
from torch import nn

from foundation_core.model.heads import PooledHead
from foundation_core.model.initialize import fresh_std, initialize
from foundation_core.model.transformer import Model

Build = Callable[..., Model]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny_decoder: Build):
    torch.manual_seed(1)
    first = tiny_decoder(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = tiny_decoder(seed=3).state_dict(), tiny_decoder(seed=4).state_dict()
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight, other[name]) == (weight.dim() < 2)


def test_a_weight_depends_on_its_name_and_not_on_what_else_is_in_the_model(tiny_decoder: Build):
    language = tiny_decoder()
    task = initialize(Model(language.stem, language.trunk, PooledHead(32, 5)), 0).state_dict()
    for name, weight in tiny_decoder().state_dict().items():
        assert torch.equal(weight, task[name])


def test_it_neither_reads_nor_moves_the_global_random_state(tiny_decoder: Build):
    model = tiny_decoder()
    before = torch.get_rng_state()
    initialize(model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_gains_are_1_biases_0_and_matrices_as_wide_as_their_inputs_ask(tiny_decoder: Build):
    model = tiny_decoder(width=128, depth=8, norm="layer", bias=True)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            assert (weight == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        expected = fresh_std(weight.shape[1]) / (4.0 if name.endswith("out.weight") else 1.0)  # 16 branches
        assert abs(weight.std().item() / expected - 1) < 0.05, name


def test_the_stream_does_not_grow_with_the_depth(tiny_decoder: Build):
    def growth(model: Model) -> float:
        tokens = torch.randint(0, 61, (4, 48), generator=torch.Generator().manual_seed(0))
        model.trunk.norm = nn.Identity()
        with torch.no_grad():
            start, layout = model.stem(tokens)
            return (model.trunk(start, layout).std() / start.std()).item()

    shallow, deep = growth(tiny_decoder(depth=2)), growth(tiny_decoder(depth=16))
    assert deep < 1.5 * shallow

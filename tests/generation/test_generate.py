from collections.abc import Callable, Sequence

import pytest
import torch

from foundation_core.errors import ConfigError
from foundation_core.generation import writers
from foundation_core.generation.generate import generate, stream
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import Model

Build = Callable[..., Model]
GREEDY = Sampling(temperature=0)
PROMPTS = [[5], [7, 8, 9, 10, 11, 12], [30, 2, 30]]
VARIANTS = [
    {},
    {"kv_heads": 1, "qk_norm": True},
    {"position": "learned", "norm": "layer"},
    {"position": "sinusoidal"},
    {"position": "alibi", "seed": 4},
    {"position": "relative"},
    {"experts": 4},
]


@pytest.fixture(params=[0, 1 << 60], ids=["compiled", "plain"], autouse=True)
def worth_a_compiled_step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write, however little there is to write; experts are written the plain way in both."""
    monkeypatch.setattr(writers, "WORTH_LOADING", request.param)
    monkeypatch.setattr(writers, "WORTH_COMPILING", request.param)


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join(map(str, variant.values())) or "usual")
def model(request: pytest.FixtureRequest, tiny_decoder: Build) -> Model:
    decoder = tiny_decoder(**request.param)
    with torch.no_grad():  # fresh weights hardly tell tokens apart: larger ones leave no near ties to round either way
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
    return decoder


def greedy_without_a_cache(model: Model, prompt: list[int], tokens: int) -> list[int]:
    row = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    return row[len(prompt) :]


def test_greedy_through_the_cache_equals_greedy_without_it(model: Model):
    written = generate(model, PROMPTS[1:2], max_tokens=20, sampling=GREEDY)
    assert written == [greedy_without_a_cache(model, PROMPTS[1], 20)]
    assert len(set(written[0])) > 1


def test_prompts_of_unequal_length_together_equal_each_alone(model: Model):
    together = generate(model, PROMPTS, max_tokens=20, sampling=GREEDY)
    assert together == [generate(model, [prompt], max_tokens=20, sampling=GREEDY)[0] for prompt in PROMPTS]
    assert together == [greedy_without_a_cache(model, prompt, 20) for prompt in PROMPTS]


def test_only_the_best_token_to_choose_from_is_greedy_at_any_temperature(model: Model):
    greedy = generate(model, PROMPTS, max_tokens=12, sampling=GREEDY)
    assert generate(model, PROMPTS, max_tokens=12, sampling=Sampling(5.0, top_k=1)) == greedy
    assert generate(model, PROMPTS, max_tokens=12, sampling=Sampling(5.0, top_k=61)) != greedy


def test_sampling_repeats_with_the_seed_and_changes_with_it(model: Model):
    first = generate(model, PROMPTS, 12, seed=1)
    assert generate(model, PROMPTS, 12, seed=1) == first
    assert generate(model, PROMPTS, 12, seed=2) != first


def test_a_sampled_row_does_not_depend_on_the_rows_beside_it(model: Model):
    assert generate(model, PROMPTS, 12, seed=1)[0] == generate(model, PROMPTS[:1], 12, seed=1)[0]


def test_equal_prompts_in_one_batch_get_samples_of_their_own(model: Model):
    first, second = generate(model, [PROMPTS[0]] * 2, 12, Sampling(2.0))
    assert first != second


def test_samples_come_as_often_as_their_probability_and_only_from_the_best(tiny_decoder: Build):
    model = tiny_decoder()
    with torch.no_grad():
        model.stem.embed.weight.mul_(4.0)
        logits = model(torch.tensor([[5]]))[0, -1]
    best = logits.topk(4)
    drawn = torch.tensor(generate(model, [[5]] * 4000, 1, Sampling(0.7, top_k=4))).flatten()
    shares = torch.stack([(drawn == token).float().mean() for token in best.indices])
    assert shares.sum() == 1
    expected = (best.values / 0.7).softmax(0)
    assert (shares - expected).abs().max() < 4 * 0.5 / 4000**0.5
    assert (expected - 0.25).abs().max() > 0.05  # the shares to hit are not just equal ones


def test_the_end_token_closes_its_row_and_no_other(model: Model):
    free = generate(model, PROMPTS, max_tokens=20, sampling=GREEDY)
    end = free[1][3]
    closed = generate(model, PROMPTS, max_tokens=20, sampling=GREEDY, stop=Stop(end))
    for row, whole in zip(closed, free, strict=True):
        assert row == (whole[: whole.index(end) + 1] if end in whole else whole)
    assert len(closed[1]) <= 4


def test_the_end_of_a_long_prompt_is_read(tiny_decoder: Build):
    model = tiny_decoder(position="learned")
    long = torch.randint(0, 61, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    assert generate(model, [long], 8, GREEDY) == generate(model, [long[-40:]], 8, GREEDY)


def test_generation_leaves_the_mode_of_the_model_and_draws_without_dropout(tiny_decoder: Build):
    model = tiny_decoder(dropout=0.5)
    assert generate(model.train(), PROMPTS, 12) == generate(model, PROMPTS, 12)
    assert model.training


def test_what_cannot_be_generated_is_refused_with_the_numbers(tiny_decoder: Build):
    model = tiny_decoder()
    assert generate(model, [], 5) == []
    with pytest.raises(ConfigError, match="48 tokens were asked of a model that reads 48"):
        generate(model, PROMPTS, 48)
    with pytest.raises(ConfigError, match="no token"):
        generate(model, [[1], []], 5)


def test_a_stream_gives_the_tokens_one_by_one_and_nothing_for_a_row_that_has_ended(model: Model):
    free = generate(model, PROMPTS, max_tokens=20, sampling=GREEDY)
    stop = Stop(end_token=free[1][3])
    steps = list(stream(model, PROMPTS, 20, GREEDY, stop))
    rows = [[step[row] for step in steps if step[row] is not None] for row in range(len(PROMPTS))]
    assert rows == generate(model, PROMPTS, 20, GREEDY, stop)
    assert any(token is None for step in steps for token in step)
    assert next(iter(stream(model, PROMPTS, 20, GREEDY))) == [row[0] for row in free]


def letters(tokens: Sequence[int]) -> str:
    return "".join(chr(ord("A") + token) for token in tokens)


def test_a_stop_text_ends_its_row_where_it_is_complete_also_across_tokens(model: Model):
    free = generate(model, PROMPTS, max_tokens=20, sampling=GREEDY)
    text = letters(free[2][4:7])
    stopped = generate(model, PROMPTS, 20, GREEDY, Stop(texts=("not there", text), decode=letters))
    for row, whole in zip(stopped, free, strict=True):
        found = letters(whole).find(text)
        assert row == (whole if found < 0 else whole[: found + len(text)])
    assert len(stopped[2]) <= 7


def test_a_prompt_read_as_a_prefix_is_read_both_ways_and_what_follows_is_not(model: Model):
    prompt = PROMPTS[1]
    order = torch.tensor([[0] * len(prompt) + list(range(1, 21))])

    def uncached(tokens: int) -> list[int]:
        row = list(prompt)
        with torch.no_grad():
            for _ in range(tokens):
                layout = Layout(torch.arange(len(row))[None], order=order[:, : len(row)])
                row.append(int(model(torch.tensor([row]), layout)[0, -1].argmax()))
        return row[len(prompt) :]

    found = generate(model, PROMPTS, 20, GREEDY, prefix=True)
    assert found[1] == uncached(20)
    assert found != generate(model, PROMPTS, 20, GREEDY)

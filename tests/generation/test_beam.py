"""Beam search and greedy writing of an encoder-decoder.

The models are float64: with weights so large, twelve tokens' log-probabilities in float32 are 1.4e-4 off, and one or
two threads of torch differ by 2e-4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from foundation_core.errors import ConfigError
from foundation_core.generation.beam import beam_search
from foundation_core.generation.generate import generate, remember
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.model.attention import Memory
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import EncoderDecoder, Model
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY, START, END, ROWS = 13, 0, 1, 4
GREEDY = Sampling(temperature=0)
SOURCE = torch.randint(2, VOCABULARY, (ROWS, 10), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([10, 3, 7, 1])
LAYOUT = Layout(
    torch.arange(10).expand(ROWS, -1), torch.where(torch.arange(10) < LENGTHS[:, None], 0, PADDING).expand(ROWS, -1)
)
STARTS = [[START]] * ROWS
EXACT = 1e-9


@pytest.fixture(params=["rotary", "sinusoidal", "relative"])
def model(request: pytest.FixtureRequest) -> EncoderDecoder:
    trunk = TrunkSpec(width=32, depth=2, heads=4, position=request.param)
    spec = ModelSpec(family="encoder_decoder", trunk=trunk, context_tokens=24)
    made = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), 0)
    with torch.no_grad():  # fresh weights hardly tell tokens apart
        for parameter in made.parameters():
            parameter.mul_(3.0)
    return made.double().eval()


@pytest.fixture
def memory(model: EncoderDecoder) -> Memory:
    return remember(model, SOURCE, LAYOUT)


@torch.no_grad()
def log_probabilities(model: EncoderDecoder, row: int, written: list[int]) -> Tensor:
    """(tokens,) nats of what was written, read at once and without a cache."""
    source = SOURCE[row : row + 1, : LENGTHS[row]]
    logits = model(source, torch.tensor([[START, *written[:-1]]]))[0]
    return logits.log_softmax(-1)[torch.arange(len(written)), written]


def test_greedy_through_both_caches_equals_greedy_without_them(model: EncoderDecoder, memory: Memory):
    found = generate(model.decoder, STARTS, 15, GREEDY, memory=memory)
    for row in range(ROWS):
        written: list[int] = []
        with torch.no_grad():
            for _ in range(15):
                inputs = torch.tensor([[START, *written]])
                written.append(int(model(SOURCE[row : row + 1, : LENGTHS[row]], inputs)[0, -1].argmax()))
        assert found[row] == written
    assert len({tuple(row) for row in found}) > 1


def test_float32_writes_what_float64_writes(model: EncoderDecoder, memory: Memory):
    exact = generate(model.decoder, STARTS, 15, GREEDY, memory=memory)
    short = model.float()
    assert generate(short.decoder, STARTS, 15, GREEDY, memory=remember(short, SOURCE, LAYOUT)) == exact


def test_the_memory_is_encoded_once_and_its_keys_are_computed_once(model: EncoderDecoder, memory: Memory):
    calls = []
    attention = model.decoder.trunk.blocks[0].read.branch
    hook = attention.key.register_forward_hook(lambda *_: calls.append(1))
    encoded = model.trunk.register_forward_hook(lambda *_: pytest.fail("the encoder ran again"))
    generate(model.decoder, STARTS, 8, GREEDY, memory=memory)
    hook.remove()
    encoded.remove()
    assert len(calls) == 1


def test_one_beam_is_greedy(model: EncoderDecoder, memory: Memory):
    greedy = generate(model.decoder, STARTS, 15, GREEDY, Stop(END), memory=memory)
    assert [found.tokens for found in beam_search(model.decoder, STARTS, 15, 1, Stop(END), memory=memory)] == greedy


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_score_is_that_of_its_row_and_no_lower_than_greedys(
    model: EncoderDecoder, memory: Memory, length_penalty: float
):
    greedy = generate(model.decoder, STARTS, 12, GREEDY, Stop(END), memory=memory)
    found = beam_search(model.decoder, STARTS, 12, 5, Stop(END), length_penalty, memory)
    better = 0
    for row in range(ROWS):
        scores = [
            (log_probabilities(model, row, written).sum() / len(written) ** length_penalty).item()
            for written in (found[row].tokens, greedy[row])
        ]
        assert found[row].score == pytest.approx(scores[0], abs=EXACT)
        assert scores[0] >= scores[1] - EXACT
        better += scores[0] > scores[1] + 1e-3
    assert better > 0


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_of_all_rows_of_two_tokens(
    model: EncoderDecoder, memory: Memory, length_penalty: float
):
    found = beam_search(model.decoder, STARTS, 2, VOCABULARY, Stop(END), length_penalty, memory)
    firsts = [token for token in range(VOCABULARY) if token != END]
    inputs = torch.tensor([[START, token] for token in firsts])
    for row in range(ROWS):
        source = SOURCE[row : row + 1, : LENGTHS[row]].expand(len(firsts), -1)
        with torch.no_grad():
            nats = model(source, inputs).log_softmax(-1)
        scores = {(END,): nats[0, 0, END].item()}
        for number, first in enumerate(firsts):
            both = (nats[number, 0, first] + nats[number, 1]) / 2**length_penalty
            scores |= {(first, second): score for second, score in enumerate(both.tolist())}
        assert tuple(found[row].tokens) == max(scores, key=lambda written: scores[written])


def test_a_row_does_not_depend_on_the_others(model: EncoderDecoder, memory: Memory):
    together = beam_search(model.decoder, STARTS, 10, 4, Stop(END), memory=memory)
    for row in range(ROWS):
        one = Memory(memory.x[row : row + 1], memory.layout.select(torch.tensor([row])))
        alone = beam_search(model.decoder, STARTS[:1], 10, 4, Stop(END), memory=one)[0]
        assert alone.tokens == together[row].tokens
        assert alone.score == pytest.approx(together[row].score, abs=EXACT)


def test_no_beam_is_refused(model: EncoderDecoder):
    with pytest.raises(ConfigError, match="beams=0"):
        beam_search(model.decoder, STARTS, 5, 0)


@pytest.fixture
def decoder(tiny_decoder: Callable[..., Model]) -> Model:
    made = tiny_decoder()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3.0)
    return made.double().eval()


@pytest.mark.parametrize("prefix", [True, False])
@torch.no_grad()
def test_beams_read_a_prefix_both_ways(decoder: Model, prefix: bool):
    prompts = [[5, 9, 3, 8], [7, 2]]  # the shorter one is padded
    best = beam_search(decoder, prompts, 6, 3, length_penalty=0.0, prefix=prefix)
    greedy = generate(decoder, prompts, 6, GREEDY, prefix=prefix)
    assert [one.tokens for one in beam_search(decoder, prompts, 6, 1, prefix=prefix)] == greedy
    for prompt, found in zip(prompts, best, strict=True):
        row = torch.tensor([[*prompt, *found.tokens[:-1]]])
        place = torch.arange(row.shape[1])[None]
        scores = []
        for whole in (prefix, not prefix):
            order = torch.where(place < len(prompt), len(prompt) - 1, place) if whole else None
            nats = decoder(row, Layout(place, None, order))[0, len(prompt) - 1 :].log_softmax(-1)
            scores.append(nats[torch.arange(6), found.tokens].sum().item())
        assert found.score == pytest.approx(scores[0], abs=EXACT)
        assert scores[1] != pytest.approx(scores[0], abs=1e-3)  # control: the other way of reading is another score


def test_a_hypothesis_ends_with_a_stop_text(model: EncoderDecoder, memory: Memory):
    def decode(tokens: Sequence[int]) -> str:
        return "".join(chr(ord("a") + token) for token in tokens)

    free = beam_search(model.decoder, STARTS, 10, 3, memory=memory)
    text = decode(free[0].tokens)[3:5]
    for found in beam_search(model.decoder, STARTS, 10, 3, Stop(texts=(text,), decode=decode), memory=memory):
        written = decode(found.tokens)
        assert text not in written[:-1]
        assert written.endswith(text) or len(written) == 10
    assert any(text in decode(one.tokens)[:-1] for one in free)  # control

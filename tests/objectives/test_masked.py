"""What is hidden of a text is asked for, all else is shown, and any rank hides the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation_core.errors import ConfigError
from foundation_core.fitting import Spans
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING
from foundation_core.objectives.base import IGNORE, Request, SpecialTokens
from foundation_core.objectives.masked import MaskedToken, SpanCorruption, first_of_word, random_parts, span_corruption
from foundation_core.shape import SampleShape
from foundation_core.specs import MaskingSpec, ModelSpec, TrunkSpec

VOCABULARY, END, START, MASK = 500, 0, 1, 2
SENTINELS = tuple(range(3, 19))
FIRST_TEXT = 20
TOKENS = SpecialTokens(
    VOCABULARY,
    END,
    START,
    MASK,
    SENTINELS,
    word_edges=torch.stack([torch.arange(VOCABULARY) % 3 > 0, torch.arange(VOCABULARY) % 5 > 0], dim=1),
)
ROWS, T = 200, 64


def _batch() -> dict[str, torch.Tensor]:
    """Rows of two documents, each closed by its end token, and some padding."""
    tokens = torch.randint(FIRST_TEXT, VOCABULARY, (ROWS, T + 1), generator=torch.Generator().manual_seed(0))
    segment = torch.tensor([[0] * 30 + [1] * 28 + [PADDING] * (T + 1 - 58)]).repeat(ROWS, 1)
    tokens[:, 29], tokens[:, 57], tokens[:, 58:] = END, END, 0
    position = torch.tensor([[*range(30), *range(28), *[0] * (T + 1 - 58)]]).repeat(ROWS, 1)
    return {"tokens": tokens, "segment": segment, "position": position, "sample": torch.arange(ROWS)}


BATCH = _batch()


def _some(batch: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: values[rows] for name, values in batch.items()}


def test_so_many_tokens_are_chosen_and_hidden_in_the_known_proportions():
    example = MaskedToken(TOKENS).prepare(BATCH, 0)
    chosen, shown = example.labels != IGNORE, example.inputs["inputs"]
    original = BATCH["tokens"][:, :T]
    text = (BATCH["segment"][:, :T] != PADDING) & (original != END)
    assert torch.equal(shown[~chosen], original[~chosen])
    assert torch.equal(example.labels[chosen], original[chosen])
    assert not chosen[~text].any(), "an end token or padding was asked for"
    share = chosen.sum() / text.sum()
    assert abs(share - 0.15) < 0.01
    masked = (shown[chosen] == MASK).float().mean()
    same = (shown[chosen] == original[chosen]).float().mean()
    assert abs(masked - 0.8) < 0.03
    assert abs(same - 0.1) < 0.03


def test_a_row_is_hidden_alike_in_any_batch_and_otherwise_by_another_seed():
    objective = MaskedToken(TOKENS)
    whole, part = objective.prepare(BATCH, 0), objective.prepare(_some(BATCH, slice(50, 60)), 0)
    assert torch.equal(part.labels, whole.labels[50:60])
    assert torch.equal(part.inputs["inputs"], whole.inputs["inputs"][50:60])
    assert not torch.equal(objective.prepare(BATCH, 1).labels, whole.labels)


def test_whole_words_are_chosen_with_all_their_tokens():
    example = MaskedToken(TOKENS, whole_words=True).prepare(BATCH, 0)
    tokens, segment = BATCH["tokens"][:, :T], BATCH["segment"][:, :T]
    assert TOKENS.word_edges is not None
    first = first_of_word(tokens, segment, TOKENS.word_edges)
    chosen, text = example.labels != IGNORE, (segment != PADDING) & (tokens != END)
    assert torch.equal(chosen[text], chosen.gather(1, first)[text] | (chosen & (tokens.gather(1, first) == END))[text])
    plain = MaskedToken(TOKENS).prepare(BATCH, 0).labels != IGNORE
    assert not torch.equal(plain[text], plain.gather(1, first)[text]), "control: tokens are chosen one by one"


def test_a_tokenizer_without_a_mask_is_refused():
    with pytest.raises(ConfigError, match="no mask token"):
        MaskedToken(SpecialTokens(VOCABULARY, END))
    with pytest.raises(ConfigError, match="no sentinels"):
        SpanCorruption(SpecialTokens(VOCABULARY, END, START))


def _restored(source: list[int], target: list[int]) -> list[int]:
    """The text that a source and its spans come from: each sentinel replaced by the span behind it."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in SENTINELS:
            span = spans[token] = []
        else:
            span.append(token)
    return [part for token in source for part in (spans[token] if token in SENTINELS else [token])]


def test_source_and_spans_of_each_document_together_are_its_text_again_and_its_spans_end():
    example = SpanCorruption(TOKENS).prepare(BATCH, 0)
    source_segment, target_segment = example.inputs["source_layout"].segment, example.inputs["layout"].segment
    cut = asked = 0
    for row in range(ROWS):
        for document in (0, 1):
            source = example.inputs["source"][row][source_segment[row] == document].tolist()
            target = example.labels[row][target_segment[row] == document].tolist()
            text = BATCH["tokens"][row, :T][BATCH["segment"][row, :T] == document].tolist()
            if not target:
                assert source == text
                continue
            assert target[-1] == END, "a model would never learn where the spans of this document end"
            assert _restored(source, target[:-1]) == text
            cut += sum(token not in SENTINELS for token in target[:-1])
            asked += 1
    assert abs(cut / (ROWS * 58) - 0.15) < 0.02
    assert asked > 1.5 * ROWS, "both documents of most rows were cut into"


def test_too_few_sentinels_are_refused_and_do_not_make_spans_longer():
    few = SpecialTokens(VOCABULARY, END, START, MASK, SENTINELS[:4])
    with pytest.raises(ConfigError, match="cuts 6 spans out of a row of 128 tokens, and the tokenizer has 4 sentinels"):
        span_corruption(_request(few, context_tokens=128)).fit(128)
    batch = {name: values.repeat(1, 2)[:, :129] for name, values in BATCH.items() if name != "sample"}
    with pytest.raises(ConfigError, match="6 spans"):  # also of one that was built by hand
        SpanCorruption(few).prepare({**batch, "sample": BATCH["sample"]}, 0)
    span_corruption(_request(TOKENS, context_tokens=128)).fit(128)


@pytest.mark.parametrize(("fraction", "span_tokens", "fits"), [(0.5, 1.0, False), (0.49, 1.0, True), (0.5, 2.0, True)])
def test_a_target_is_never_longer_than_the_context(fraction: float, span_tokens: float, fits: bool):
    tokens = SpecialTokens(VOCABULARY, END, START, MASK, tuple(range(3, 67)))
    masking = MaskingSpec(fraction=fraction, span_tokens=span_tokens)
    if not fits:
        with pytest.raises(ConfigError, match="asks for up to 129 tokens of a document that fills a row of 128"):
            span_corruption(_request(tokens, 128, masking)).fit(128)
        return
    objective = span_corruption(_request(tokens, 128, masking))
    objective.fit(128)
    text = torch.randint(67, VOCABULARY, (4, 129), generator=torch.Generator().manual_seed(0))
    batch = {"tokens": text, "segment": torch.zeros_like(text), "sample": torch.arange(4)}
    trunk = TrunkSpec(width=8, depth=1, heads=1, position="learned")
    spec = ModelSpec(family="encoder_decoder", trunk=trunk, context_tokens=128)
    model = initialize(build(spec, SampleShape(vocabulary=VOCABULARY)), seed=0)
    example = objective.prepare(batch, 0)
    assert example.inputs["layout"].position.max() < 128
    assert objective.loss(model, example).isfinite()


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 600), st.floats(0.01, 0.99), st.floats(1, 20))
def test_a_longer_text_has_no_fewer_spans_so_that_a_whole_row_tells_for_all(
    tokens: int, fraction: float, span_tokens: float
):
    shorter, longer = Spans.of(tokens, fraction, span_tokens), Spans.of(tokens + 1, fraction, span_tokens)
    assert 1 <= shorter.spans <= shorter.cut_tokens < tokens
    assert shorter.cut_tokens <= longer.cut_tokens
    assert shorter.spans <= longer.spans


def _request(tokens: SpecialTokens, context_tokens: int, masking: MaskingSpec | None = None) -> Request:
    model = ModelSpec(family="encoder_decoder", context_tokens=context_tokens)
    return Request(model, masking or MaskingSpec(), SampleShape(vocabulary=VOCABULARY), tokens)


def test_the_decoder_reads_the_labels_one_later_and_a_start_where_a_document_begins():
    example = SpanCorruption(TOKENS).prepare(BATCH, 0)
    labels, inputs, segment = example.labels, example.inputs["inputs"], example.inputs["layout"].segment
    same = segment[:, 1:] == segment[:, :-1]
    inside = same & (segment[:, 1:] != PADDING)
    assert torch.equal(inputs[:, 1:][inside], labels[:, :-1][inside])
    begins = torch.cat([torch.ones(ROWS, 1, dtype=torch.bool), ~same], dim=1) & (segment != PADDING)
    assert (inputs[begins] == START).all()
    assert begins.sum(1).max() == 2, "both documents were cut into"


def test_a_span_stays_in_its_document():
    example = SpanCorruption(TOKENS, fraction=0.4, span_tokens=6.0).prepare(BATCH, 0)
    for row in range(ROWS):
        segment = example.inputs["layout"].segment[row]
        for document, first, last in ((0, 0, 30), (1, 30, 58)):
            asked = example.labels[row][segment == document]
            text = set(BATCH["tokens"][row, first:last].tolist()) | set(SENTINELS) | {END}
            assert set(asked.tolist()) <= text


def test_spans_are_the_same_in_any_batch():
    objective = SpanCorruption(TOKENS)
    whole, part = objective.prepare(BATCH, 0), objective.prepare(_some(BATCH, slice(7, 8)), 0)
    length = part.labels.shape[1]
    assert torch.equal(part.labels, whole.labels[7:8, :length])
    assert (whole.labels[7, length:] == IGNORE).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.data())
def test_parts_are_positive_and_sum_to_the_total(total: int, data: st.DataObject):
    parts = data.draw(st.integers(1, total))
    lengths = random_parts(total, parts, torch.rand(total))
    assert len(lengths) == parts
    assert lengths.min() >= 1
    assert lengths.sum() == total


def test_padding_rows_and_texts_of_one_token_ask_for_nothing():
    batch = {name: values[:2].clone() for name, values in BATCH.items()}
    batch["segment"][0], batch["segment"][1, 1:] = PADDING, PADDING
    for objective in (MaskedToken(TOKENS), SpanCorruption(TOKENS)):
        example = objective.prepare(batch, 0)
        assert (example.labels[0] == IGNORE).all()
    assert SpanCorruption(TOKENS).prepare(batch, 0).count == 0

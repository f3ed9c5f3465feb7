"""Any text is a task: what follows a fragment, scored beside counting."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.adapt.continuation import Continuation, ContinueText
from foundation_core.adapt.grams import ByteGrams, GramModel
from foundation_core.adapt.tasks import TaskData
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS
from foundation_core.data.tokens.byte_level import token_bytes
from foundation_core.errors import ConfigError
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.objectives.base import IGNORE
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, IngestSpec, ModelSpec, SourceSpec, SplitSpec, TokenizerSpec, TrunkSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from tests.support.spanish import TEXTS

SPEC = FinetuneSpec(
    task="continue_text", fragment_tokens=12, answer_tokens=8, few_labels=1, all_labels=40, evaluation_labels=6
)
MODEL = ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32)
TASK = ContinueText()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> Path:
    """Spanish texts in one folder, without groups."""
    root = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(TEXTS):
        (root / f"{number:02d}.txt").write_text(text)
    folder = tmp_path_factory.mktemp("corpus")
    spec = IngestSpec(
        source=SourceSpec(kind="folder", path=str(root), pattern="*.txt"),
        split=SplitSpec(validation_fraction=0.2, test_fraction=0.2, seed=7),
        tokenizer=TokenizerSpec(vocabulary=330),
    )
    ingest(spec, {}, serial_context(folder))
    return folder


@pytest.fixture(scope="module")
def data(corpus: Path) -> TaskData:
    return TASK.data(corpus, SPEC)


def test_rows_are_pieces_of_the_split_s_documents_that_do_not_overlap(corpus: Path, data: TaskData) -> None:
    for split in SPLITS:
        tokens = {
            row["document"]: row["tokens"]
            for table in ShardDataset(corpus / "tokens" / split).tables()
            for row in table.to_pylist()
        }
        rows, places = data.split(split), set[tuple[str, int]]()
        for document, row in zip(rows.documents, rows.tensors["tokens"].tolist(), strict=True):
            (place,) = (at for at in range(0, len(tokens[document]) - 19, 20) if tokens[document][at : at + 20] == row)
            assert (document, place) not in places
            places.add((document, place))
        assert len(rows) == (40 if split == "train" else 6)
        assert "".join(rows.prompts[0] + rows.references[0]) in "".join(TEXTS)


def test_labels_are_the_tokens_behind_the_fragment_and_are_read_from_those_before_alone(data: TaskData) -> None:
    batch = data.train.batch(torch.arange(3))
    example = Continuation().prepare(batch, seed=0)
    assert example.labels[:, :11].eq(IGNORE).all()
    assert torch.equal(example.labels[:, 11:], batch["tokens"][:, 12:])
    assert example.count == 24
    model = initialize(build(MODEL, SampleShape(vocabulary=330)), 0)
    changed = {**batch, "tokens": batch["tokens"].clone()}
    changed["tokens"][:, 19] = (changed["tokens"][:, 19] + 1) % 330
    logits, others = (model(**Continuation().prepare(each, 0).inputs) for each in (batch, changed))
    assert torch.equal(logits, others), "the last token is a label and no input"
    changed["tokens"][:, 5] = (changed["tokens"][:, 5] + 1) % 330
    others = model(**Continuation().prepare(changed, 0).inputs)
    assert torch.equal(logits[:, :5], others[:, :5]), "nothing is read ahead, not even in the fragment"
    assert not torch.equal(logits[:, 5:], others[:, 5:]), "a negative control"


def test_what_a_model_of_random_weights_pays_is_about_that_of_guessing_a_token(data: TaskData) -> None:
    model = initialize(build(MODEL, SampleShape(vocabulary=330)), 0)
    tally = TASK.answer(model.eval(), data.test, data.facts)
    answers = data.test.tensors["tokens"][:, 12:]
    assert tally["bytes"] == token_bytes(data.facts.text)[answers].sum()
    guessing = answers.numel() * math.log2(330) / tally["bytes"]
    assert TASK.scores(tally)["bits_per_byte"] == pytest.approx(guessing, rel=0.15)


def test_texts_that_are_all_too_short_are_refused_with_the_sizes(corpus: Path) -> None:
    spec = SPEC.model_copy(update={"fragment_tokens": 900})
    with pytest.raises(ConfigError, match="no document of the train split has 908 tokens") as caught:
        TASK.data(corpus, spec)
    assert "fragment_tokens=900" in str(caught.value)


def test_the_probabilities_behind_any_context_are_one_together() -> None:
    model = GramModel([text.encode() for text in TEXTS[:3]])
    for context in (b"", b"e", b" que ", b"la ma", "señ".encode(), b"zzzzz", b"\xff\xfe"):
        assert math.fsum(model.probability(context, bytes([byte])) for byte in range(256)) == pytest.approx(1)


def test_one_context_byte_gives_the_figures_of_the_formula() -> None:
    model = GramModel([b"abab", b"ac"], context_bytes=1)
    of_b = (2 + 3 * (1 / 256)) / (6 + 3)  # a 3 times, b twice, c once
    assert model.probability(b"", b"b") == pytest.approx(of_b)
    assert model.probability(b"a", b"b") == pytest.approx((2 + 2 * of_b) / (3 + 2))
    assert model.probability(b"c", b"b") == pytest.approx(of_b), "nothing came behind c"
    assert model.nats(b"b", before=b"xa") == pytest.approx(-math.log((2 + 2 * of_b) / 5))
    assert model.continued(b"xa", 3) == b"bab"


@given(st.binary(max_size=40), st.binary(max_size=10))
def test_a_text_costs_the_sum_of_its_parts_and_goes_on_as_long_as_asked(text: bytes, before: bytes) -> None:
    model = GramModel([b"uno dos tres", text])
    half = len(text) // 2
    parts = model.nats(text[:half], before) + model.nats(text[half:], before + text[:half])
    assert model.nats(text, before) == pytest.approx(parts)
    assert len(model.continued(before, 7)) == 7


def test_counting_is_better_than_guessing_bytes_and_worse_where_it_counted_something_else(data: TaskData) -> None:
    tally = ByteGrams().answer(TASK, data, data.train, trunk=None)  # type: ignore[arg-type]  # it needs none
    cost = TASK.scores(tally)["bits_per_byte"]
    assert 2 < cost < 5
    few = ByteGrams().answer(TASK, data, data.train.select(torch.arange(2)), trunk=None)  # type: ignore[arg-type]
    assert TASK.scores(few)["bits_per_byte"] > cost

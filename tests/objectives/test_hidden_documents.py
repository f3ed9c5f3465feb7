"""A document that is hidden in the middle of a row asks for nothing, and the others are asked what they were."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foundation_core.data.loading.quarantine import without_segments
from foundation_core.model.layout import PADDING
from foundation_core.objectives.base import IGNORE, Objective, SpecialTokens
from foundation_core.objectives.language import NextToken, Prefix
from foundation_core.objectives.masked import MaskedToken, SpanCorruption
from tests.support.training import VOCABULARY, tiny_model

ROWS, LENGTHS = 40, (5, 4, 4)
FIRST_TEXT = 10
TOKENS = SpecialTokens(VOCABULARY, 0, 1, 2, tuple(range(3, FIRST_TEXT)))
OBJECTIVES = [NextToken(), Prefix(), MaskedToken(TOKENS, 0.5), SpanCorruption(TOKENS, 0.5, 2.0)]


def _batch() -> dict[str, Tensor]:
    """Rows of three documents, whose tokens are of three ranges."""
    draw = torch.Generator().manual_seed(0)
    tokens = [torch.randint(10 * n + 10, 10 * n + 20, (ROWS, size), generator=draw) for n, size in enumerate(LENGTHS)]
    segment = torch.arange(3).repeat_interleave(torch.tensor(LENGTHS)).repeat(ROWS, 1)
    position = torch.cat([torch.arange(size) for size in LENGTHS]).repeat(ROWS, 1)
    body = {"tokens": torch.cat(tokens, dim=1).clamp(max=VOCABULARY - 1), "segment": segment, "position": position}
    return {**body, "sample": torch.arange(ROWS)}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_nothing_of_a_hidden_document_is_shown_or_asked(objective: Objective, hidden: int) -> None:
    example = objective.prepare(without_segments(_batch(), [[hidden]] * ROWS), 0)
    low, high = 10 * hidden + 10, 10 * hidden + 20
    shown = torch.cat([example.inputs[name].flatten() for name in ("inputs", "source") if name in example.inputs])
    asked = example.labels[example.labels != IGNORE]
    if not isinstance(objective, MaskedToken):  # which shows any token in place of some
        assert not ((shown >= low) & (shown < high)).any()
    assert not ((asked >= low) & (asked < high)).any()
    for other in {0, 1, 2} - {hidden}:
        assert ((asked >= 10 * other + 10) & (asked < 10 * other + 20)).any(), "the others are asked"


@pytest.mark.parametrize("objective", [NextToken(), MaskedToken(TOKENS, 0.5)], ids=["next", "masked"])
def test_the_labels_of_the_others_stay_where_they_were(objective: Objective) -> None:
    batch = _batch()
    whole = objective.prepare(batch, 0).labels
    hidden = objective.prepare(without_segments(batch, [[1]] * ROWS), 0).labels
    of_it = batch["segment"][:, 1:] == 1 if isinstance(objective, NextToken) else batch["segment"][:, :-1] == 1
    assert torch.equal(hidden, whole.masked_fill(of_it, IGNORE))


def test_the_loss_is_that_of_the_other_documents() -> None:
    model, objective, batch = tiny_model().eval(), NextToken(), _batch()

    def loss(hidden: list[int]) -> float:
        return float(objective.loss(model, objective.prepare(without_segments(batch, [hidden] * ROWS), 0)).detach())

    assert loss([1]) == pytest.approx(loss([1, 2]) + loss([0, 1]), rel=1e-6)
    assert loss([]) == pytest.approx(loss([1]) + loss([0, 2]), rel=1e-6)
    assert loss([0, 1, 2]) == 0.0


def test_segments_that_are_left_keep_their_numbers() -> None:
    hidden = without_segments(_batch(), [[1], *[[]] * (ROWS - 1)])
    assert hidden["segment"][0].tolist() == [0] * 5 + [PADDING] * 4 + [2] * 4
    assert hidden["segment"][1].tolist() == [0] * 5 + [1] * 4 + [2] * 4

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING
from foundation_core.model.transformer import Model
from foundation_core.objectives import language
from foundation_core.objectives.base import IGNORE
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

VOCABULARY = 50
SHAPE = SampleShape(vocabulary=VOCABULARY)
BATCH = {
    "tokens": torch.tensor([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 0, 0]]),
    "segment": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, PADDING, PADDING]]),
    "position": torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 2, 0, 0]]),
}
X = IGNORE


@pytest.fixture
def model() -> Model:
    spec = ModelSpec(trunk=TrunkSpec(width=16, depth=2, heads=2), context_tokens=8)
    return initialize(build(spec, SHAPE), 0)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_it_is_found_by_name():
    assert isinstance(NextToken(), NextToken)


def test_labels_are_the_next_tokens_of_the_same_document():
    example = NextToken().prepare(BATCH, seed=0)
    assert example.labels.tolist() == [[2, 3, X, 5, 6, 7], [9, X, 11, 12, X, X]]
    assert example.count.item() == 8
    assert torch.equal(example.inputs["inputs"], BATCH["tokens"][:, :-1])


def test_preparing_is_a_pure_function_of_batch_and_seed():
    before = {name: value.clone() for name, value in BATCH.items()}
    first, second = NextToken().prepare(BATCH, seed=3), NextToken().prepare(BATCH, seed=3)
    assert torch.equal(first.labels, second.labels)
    assert all(torch.equal(before[name], BATCH[name]) for name in BATCH)


def test_the_loss_is_the_float32_sum_over_the_labels_that_count(model: Model):
    objective = NextToken()
    example = objective.prepare(BATCH, seed=0)
    logits = model(**example.inputs)
    expected = -logits.log_softmax(-1)[example.labels != IGNORE].gather(
        -1, example.labels[example.labels != IGNORE][:, None]
    )
    loss = objective.loss(model, example)
    assert loss.dtype == torch.float32
    assert expected.numel() == example.count
    torch.testing.assert_close(loss, expected.sum(), rtol=1e-6, atol=0)
    assert objective.loss(model.bfloat16(), example).dtype == torch.float32


def test_scoring_in_pieces_changes_neither_loss_nor_gradient(model: Model, monkeypatch: pytest.MonkeyPatch):
    objective = NextToken()
    example = objective.prepare(BATCH, seed=0)
    monkeypatch.setattr(language, "_CHUNK_TOKENS", 5)
    loss = objective.loss(model, example)
    loss.backward()
    in_pieces = gradients(model)
    whole = F.cross_entropy(model(**example.inputs).flatten(0, 1), example.labels.flatten(), reduction="sum")
    whole.backward()
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(in_pieces[name], gradient, rtol=1e-4, atol=1e-6)


def test_sums_over_rows_add_up_where_means_of_means_do_not(model: Model):
    objective = NextToken()
    rows = [{name: value[row : row + 1] for name, value in BATCH.items()} for row in range(2)]
    examples = [objective.prepare(row, seed=0) for row in rows]
    whole = objective.prepare(BATCH, seed=0)
    objective.loss(model, whole).backward()
    expected = gradients(model)
    for example in examples:
        objective.loss(model, example).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert sum(example.count for example in examples) == whole.count

    for example in examples:
        (objective.loss(model, example) / example.count * whole.count / 2).backward()
    means = gradients(model)
    assert max((means[name] - expected[name]).abs().max() / expected[name].abs().max() for name in means) > 0.05


def test_a_document_is_scored_the_same_whatever_is_packed_before_it(model: Model):
    """Negative control: an objective that lets documents read each other scores it differently."""
    edited = {**BATCH, "tokens": BATCH["tokens"].clone()}
    edited["tokens"][0, :3] = torch.tensor([40, 41, 42])
    for objective, changes in ((NextToken(), False), (NextToken(separate_documents=False), True)):
        losses = []
        for batch in (BATCH, edited):
            example = objective.prepare({name: value[:1] for name, value in batch.items()}, seed=0)
            example.labels[:, :3] = IGNORE  # only the second document
            losses.append(objective.loss(model, example))
        assert torch.equal(*losses) != changes


def test_rows_of_padding_cost_nothing_and_move_nothing(model: Model):
    padding = {"tokens": torch.zeros(2, 7, dtype=torch.long), "segment": torch.full((2, 7), PADDING)}
    padding["position"] = padding["tokens"]
    objective = NextToken()
    example = objective.prepare(padding, seed=0)
    loss = objective.loss(model, example)
    loss.backward()
    assert (example.count.item(), loss.item()) == (0, 0.0)
    assert all(gradient.abs().max() == 0 for gradient in gradients(model).values())

"""Functions are taken apart so that nothing of the answer is in the question."""

import pytest
import torch

from foundation_core.adapt.baselines import _name_in_words
from foundation_core.adapt.functions import Completion, functions_of
from foundation_core.adapt.write import Answering, compared
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import PADDING
from foundation_core.objectives.base import IGNORE
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec

MODULE = '''
class Box:
    @property
    def size(self, unit="cm"):
        """The length of
        its side.

        In a unit.
        """
        # how long
        return self.side

    def bare(self):
        """Nothing follows."""

    def none(self):
        return 1


def one_line(): """On the line of the signature."""; return 2
'''
SHAPE = SampleShape(vocabulary=40)
TRUNK = TrunkSpec(width=16, depth=1, heads=2)


def test_a_function_is_head_docstring_and_body():
    (found,) = functions_of("box.py", MODULE)
    assert found.head == 'def size(self, unit="cm"):'
    assert found.summary == "The length of its side."
    assert found.docstring.startswith('    """The length of') and found.docstring.endswith('    """')  # noqa: PT018
    assert found.body == "\n    # how long\n    return self.side"
    assert "side." not in found.head + found.body


def test_what_is_no_python_has_no_functions():
    assert list(functions_of("x", "def (:")) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [("def get_file_size(x):", "Get file size"), ("async def readAll(self):", "Read all"), ("class A:", "")],
)
def test_a_name_says_its_words(source, words):
    assert _name_in_words(source) == words


def test_a_text_that_is_its_reference_scores_all():
    tally = compared(["one two", "three"], ["one two", "three four"])
    assert (tally["exact"], tally["rows"], tally["word_errors"], tally["words"]) == (1, 2, 1, 4)


def batch(prefix):
    tokens = torch.tensor([[5, 6, 7, 8, 9, 0]])
    segment = torch.tensor([[0, 0, 0, 0, 0, PADDING]])
    return {"tokens": tokens, "segment": segment, "prefix": torch.tensor([prefix])}


def test_only_tokens_behind_the_prefix_are_labels():
    example = Completion().prepare(batch(3), 0)
    assert example.labels.tolist() == [[IGNORE, IGNORE, 8, 9, IGNORE]]
    assert example.count == 2
    assert Completion().prepare(batch(1), 0).labels.tolist() == [[6, 7, 8, 9, IGNORE]]


def test_a_prefix_is_read_both_ways_and_what_follows_is_not():
    model = initialize(build(ModelSpec(trunk=TRUNK, context_tokens=8), SHAPE), 0)

    def logits(tokens, prefix):
        example = Completion().prepare({**batch(prefix), "tokens": tokens}, 0)
        return model(**example.inputs)[0]

    tokens = batch(3)["tokens"]
    inside, behind = tokens.clone(), tokens.clone()
    inside[0, 2], behind[0, 3] = 20, 20
    assert not torch.equal(logits(tokens, 3)[0], logits(inside, 3)[0]), "the first token reads the third"
    assert torch.equal(logits(tokens, 1)[0], logits(inside, 1)[0]), "control: not without the prefix"
    torch.testing.assert_close(logits(tokens, 3)[:3], logits(behind, 3)[:3])


def test_padding_of_a_source_is_not_read():
    spec = ModelSpec(family="encoder_decoder", trunk=TRUNK, context_tokens=8)
    model, objective = initialize(build(spec, SHAPE), 0), Answering(start=1)
    answer = {"tokens": torch.tensor([[4, 5]]), "segment": torch.zeros(1, 2, dtype=torch.long)}

    def loss(source, segment):
        rows = {
            "source": torch.tensor([source]),
            "source_segment": torch.tensor([segment]),
            "sample": torch.tensor([0]),
        }
        return objective.loss(model, objective.prepare({**answer, **rows}, 0))

    torch.testing.assert_close(loss([7, 8], [0, 0]), loss([7, 8, 9], [0, 0, PADDING]))
    assert not torch.allclose(loss([7, 8], [0, 0]), loss([7, 8, 9], [0, 0, 0]))


def test_an_example_is_made_where_the_batch_lies():
    meta = {name: tensor.to("meta") for name, tensor in batch(3).items()}
    example = Completion().prepare(meta, 0)
    layout = example.inputs["layout"]
    parts = (example.labels, example.inputs["inputs"], layout.position, layout.segment, layout.order)
    assert {part.device.type for part in parts} == {"meta"}

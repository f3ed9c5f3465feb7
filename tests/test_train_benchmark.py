"""The benchmark of training measures what it says: its window rule, its counting rival, its FLOPs, its steady speed."""

from __future__ import annotations

from functools import partial
from itertools import product
from math import log
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks.train import ablation, bare
from benchmarks.train.quality import RECIPES, summed_nats, witten_bell
from benchmarks.train.rival import WARM_UP_STEPS, Rival, Shape
from benchmarks.train.speed import flops_per_token, steady_tokens_per_second
from cluster.job import Job
from foundation_core.data.sources.book import TEST_FRACTION
from foundation_core.events import EventLog
from foundation_core.recipe import load_recipe
from foundation_core.specs import ModelSpec, PretrainSpec, TrunkSpec
from tests.support.tasks import ingested

VOCABULARY, CONTEXT = 5, 8


class Bigrams:
    """A model that gives each token what its predecessor says, so that windows change nothing."""

    def __init__(self, nats: Tensor) -> None:
        self.nats, self.spec = nats, SimpleNamespace(context_tokens=CONTEXT)

    def language_model(self):
        return lambda tokens_BT: -self.nats[tokens_BT]


@pytest.mark.parametrize("tokens", [2, 5, 8, 9, 10, 13, 64, 301])
def test_every_token_but_the_first_counts_once_whatever_the_length(tokens: int) -> None:
    torch.manual_seed(tokens)
    nats = -torch.randn(VOCABULARY, VOCABULARY).log_softmax(dim=-1)
    ids = torch.randint(VOCABULARY, (tokens,))
    expected = nats[ids[:-1], ids[1:]].sum()
    torch.testing.assert_close(summed_nats(Bigrams(nats), ids), expected.double(), atol=1e-3, rtol=0)


def test_counting_gives_the_nats_that_were_worked_out_by_hand(tmp_path: Path) -> None:
    # "abababababababababc": the end that is scored is "bc", after nine letters a and eight b
    text = "ab" * 9 + "bc"
    border = int(len(text) * (1 - TEST_FRACTION))
    known, kinds = text[:border], 3
    path = tmp_path / "text.txt"
    path.write_text(text)
    single = {letter: (known.count(letter) + 2 * (1 / kinds)) / (len(known) + 2) for letter in "abc"}
    assert text[border:] == "bc", "what is worked out here"
    # b follows b never, and nothing longer that ends with b is ever followed by another b: each length adds one kind
    behind_b = {letter: ((letter == "a") * 8 + 1 * single[letter]) / (8 + 1) for letter in "abc"}
    probability = behind_b["b"]
    for runs in (8, 7, 7):  # how often "ab", "bab" and "abab" are followed by anything: by a, always
        probability = probability / (runs + 1)
    first = probability
    # "bb" is not known: only what follows a single b says anything of "c"
    second = behind_b["c"]
    assert witten_bell(path) == pytest.approx(-(log(first) + log(second)) / 2)


def test_a_uniform_text_costs_the_logarithm_of_its_letters(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("".join("".join(letters) for letters in product("abcd", repeat=6)))
    assert witten_bell(path) > 0.9 * log(4)


def test_flops_are_those_of_every_weight_that_multiplies_and_of_the_attention_of_whole_rows() -> None:
    shape = Shape(depth=2, width=16, heads=2, context_tokens=8, vocabulary=32)
    model = Rival(shape)
    multiplied = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2) + model.embed.weight.numel()
    scores_and_sums = 2 * shape.depth * 2 * shape.width * shape.context_tokens
    assert flops_per_token(shape) == 3 * (2 * multiplied + scores_and_sums)


def test_logits_in_pieces_give_the_same_loss() -> None:
    shape = Shape(depth=1, width=16, heads=2, context_tokens=8, vocabulary=32, batch_rows=4)
    torch.manual_seed(0)
    model, tokens = Rival(shape), torch.randint(32, (4, 9))
    whole = model(tokens)
    model.loss_pieces = 3
    torch.testing.assert_close(model(tokens), whole)


def test_the_steady_speed_is_that_of_the_steps_behind_the_warm_up_saves_included(tmp_path: Path, monkeypatch) -> None:
    events = EventLog(tmp_path)
    ends = [10.0 * step for step in range(1, WARM_UP_STEPS + 1)] + [1000.0, 1002.0, 1004.0, 1106.0]
    for step, end in enumerate(ends, start=1):
        monkeypatch.setattr("time.time", partial(float, end))
        events.write("metrics", step=step, values={"train/lr": 1e-3})
    expected = 4 * 100 / (1106.0 - 10.0 * WARM_UP_STEPS)
    assert steady_tokens_per_second(tmp_path, 100) == pytest.approx(expected)


@pytest.mark.parametrize("choice", sorted(ablation.CHOICES))
def test_every_choice_of_the_ablation_is_one_that_the_recipe_made(choice: str) -> None:
    recipe = RECIPES / "shakespeare.yaml"
    fields = [(f"pretrain.{name}", value) for name, value in ablation.CHOICES[choice].items()]
    undone, whole = load_recipe(recipe, fields).pretrain, load_recipe(recipe).pretrain
    assert (undone == whole) == (not fields)


def test_the_bare_step_is_that_of_the_job_and_counts_the_tokens_behind_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, clock = ingested(tmp_path / "ingested"), iter([10.0, 12.0])
    monkeypatch.setattr(bare, "load_result", lambda path: corpus)
    monkeypatch.setattr(bare, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    model = ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32)
    spec = PretrainSpec(
        model=model, steps=WARM_UP_STEPS + 2, batch_rows=4, precision="float32", workers=1, engine="torch",
        validation_rows=4,
    )  # fmt: skip
    job = Job("pretrain", spec.model_dump(mode="json"), {"corpus": "corpus"}, str(tmp_path), {})
    assert bare.tokens_per_second(job, tmp_path / "bare") == 2 * 4 * 32 / 2.0

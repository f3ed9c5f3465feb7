"""A pretraining on pictures, recordings, series or pairs that is stopped ends as one that was not, to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from foundation_core.errors import Stopped
from foundation_core.identity import action_key
from foundation_core.specs import PretrainSpec
from foundation_core.stages import pretrain as stage
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.stages.pretrain import pretrain
from foundation_core.store import Result, StageResult, commit_result
from tests.support.faults import StopAfter
from tests.support.raw_items import CASES

Contexts = Callable[..., Context]

TRUNK = {"width": 16, "depth": 1, "heads": 2, "position": "learned"}
CHANGED = {"shift": [1, 1]}
"""Values differ each time that they are seen: what is drawn must be the same after a stop."""
STEPS = 10


def masked(patch: tuple[int, int], **more: Any) -> Mapping[str, Any]:
    """A masked autoencoder's part of a recipe."""
    model = {"family": "masked_autoencoder", "patch": patch, "trunk": TRUNK}
    return {"model": model, "objective": "masked_patches", **more}


PRETRAININGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "images": ("images", masked((4, 4), augment=CHANGED)),
    "audio": ("audio", masked((16, 4), augment=CHANGED)),
    "series": ("series", masked((1, 5))),
    "image and text": ("captioned images", {
        "model": {"family": "dual_encoder", "patch": [4, 4], "trunk": TRUNK, "context_tokens": 16},
        "objective": "contrastive", "micro_batch_rows": 4, "augment": CHANGED,
    }),
    "image to text": ("captioned images", {
        "model": {"family": "captioner", "patch": [4, 4], "trunk": TRUNK, "context_tokens": 16},
        "objective": "captioning", "augment": CHANGED,
    }),
}  # fmt: skip
"""What is read, and what is trained on it."""


class Training(NamedTuple):
    """A corpus, a spec, and what comes out where nothing stops it."""

    corpus: Result
    spec: PretrainSpec
    undisturbed: StageResult


@pytest.fixture(scope="module", autouse=True)
def untimed() -> Iterator[None]:
    """The matrix product that utilisation is told by takes longer than all of these trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "matmul_flops_per_second", lambda dtype, device: 1e9)
        yield


def prepared(root: Path, name: str, contexts: Contexts, **more: Any) -> tuple[Result, PretrainSpec]:
    """A corpus, and what is to be trained on it."""
    source, told = PRETRAININGS[name]
    case = CASES[source]
    case.write(root / "raw")
    tokenizer = {"tokenizer": {"vocabulary": 270, "special": {"start": True}}} if source == "captioned images" else {}
    asked = case.spec(root / "raw", **tokenizer)
    folder = root / "ingest"
    corpus = commit_result(folder, action_key("ingest", asked, {}), ingest(asked, {}, contexts(folder)))
    spec = PretrainSpec.model_validate(
        {
            "steps": STEPS, "batch_rows": 4, "micro_batch_rows": 2, "optimizer": {"lr": 2e-2}, "precision": "float32",
            "validate_every_steps": 2, "validation_rows": 8, "checkpoint_every_steps": 3, "workers": 1,
            "engine": "torch", **told, **more,
        }
    )  # fmt: skip
    return corpus, spec


@pytest.fixture(scope="module", params=PRETRAININGS)
def training(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serial_context: Contexts
) -> Training:
    root = tmp_path_factory.mktemp("media")
    corpus, spec = prepared(root, request.param, serial_context)
    return Training(corpus, spec, pretrain(spec, {"corpus": corpus}, serial_context(root / "undisturbed")))


def test_a_loss_over_all_pairs_of_a_batch_is_not_cut_into_micro_batches(
    tmp_path: Path, serial_context: Contexts
) -> None:
    """A step of 4 pairs is the same whether 2 or 4 are asked for at a time; of 2 pairs a step it is another."""
    corpus, joint = prepared(tmp_path, "image and text", serial_context, micro_batch_rows=4)
    hashes = []
    for name, fields in (("4", {}), ("2", {"micro_batch_rows": 2}), ("less", {"micro_batch_rows": 2, "batch_rows": 2})):
        made = pretrain(joint.model_copy(update=fields), {"corpus": corpus}, serial_context(tmp_path / name))
        hashes.append(made.outputs["weights.safetensors"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_ends_with_the_same_outputs(training: Training, tmp_path: Path, serial_context: Contexts) -> None:
    inputs, done = {"corpus": training.corpus}, 0
    for more in (2, 5):
        done += more
        with pytest.raises(Stopped, match=f"after step {done} of {STEPS}"):
            pretrain(training.spec, inputs, serial_context(tmp_path, stop=StopAfter(more)))
    again = pretrain(training.spec, inputs, serial_context(tmp_path))
    assert again.outputs == training.undisturbed.outputs
    for name in ("order_hash", "model_hash_end", "best_step", "best_validation"):
        assert again.summary[name] == training.undisturbed.summary[name]


def test_another_seed_ends_elsewhere(training: Training, tmp_path: Path, serial_context: Contexts) -> None:
    """The control: outputs tell trainings apart."""
    other = training.spec.model_copy(update={"seed": 1})
    trained = pretrain(other, {"corpus": training.corpus}, serial_context(tmp_path))
    assert trained.summary["model_hash_end"] != training.undisturbed.summary["model_hash_end"]

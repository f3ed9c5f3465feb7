"""A model names the tokenizer that it was trained with where it reads or writes tokens, and only there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.adapt.transfer import MODEL_FILE
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.files import read_json
from foundation_core.identity import action_key
from foundation_core.specs import IngestSpec, PretrainSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.stages.pretrain import pretrain
from foundation_core.store import Result, commit_result

Contexts = Callable[..., Context]
TRUNK = {"width": 16, "depth": 1, "heads": 2}
INGEST = IngestSpec.model_validate(
    {
        "source": {"kind": "digits_with_captions"},
        "image": {"size_pixels": 8, "channels": 1},
        "tokenizer": {"vocabulary": 300, "special": {"start": True}},
    }
)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, serial_context: Contexts) -> Result:
    """Digits with captions, and so with a tokenizer."""
    folder = tmp_path_factory.mktemp("ingest")
    return commit_result(folder, action_key("ingest", INGEST, {}), ingest(INGEST, {}, serial_context(folder)))


@pytest.mark.parametrize(
    ("family", "objective", "reads_tokens"),
    [
        ("masked_autoencoder", "masked_patches", False),
        ("captioner", "captioning", True),
        ("dual_encoder", "contrastive", True),
    ],
)
def test_it_is_named_by_models_of_tokens_alone(
    captioned: Result, family: str, objective: str, reads_tokens: bool, serial_context: Contexts, tmp_path: Path
) -> None:
    body = {
        "model": {"family": family, "trunk": TRUNK, "patch": [2, 2], "context_tokens": 24}, "objective": objective,
        "steps": 1, "batch_rows": 4, "micro_batch_rows": 4, "validation_rows": 4, "validate_every_steps": 1,
        "precision": "float32", "engine": "torch", "workers": 1,
    }  # fmt: skip
    pretrain(PretrainSpec.model_validate(body), {"corpus": captioned}, serial_context(tmp_path))
    named = read_json(tmp_path / MODEL_FILE)["tokenizer"]
    assert captioned.outputs[TOKENIZER_FILE], "the corpus has one in any case"
    assert named == (captioned.outputs[TOKENIZER_FILE] if reads_tokens else None)

"""Served models of every family that writes, small and with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer

from foundation_core.adapt.tasks import Facts, find_task
from foundation_core.adapt.transfer import Pretrained
from foundation_core.data.tokens.byte_level import train_tokenizer
from foundation_core.data.values.features import Features, Statistics
from foundation_core.files import write_json
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.shape import SampleShape
from foundation_core.specs import FinetuneSpec, ModelSpec, SpecialTokensSpec, TrunkSpec
from foundation_core.tracking.served import ServedModel, TaskModel
from foundation_core.weights import save_weights

VOCABULARY, CONTEXT = 300, 24
IMAGE = Features(
    "image",
    {"image": {"size_pixels": 8, "channels": 1}},
    SampleShape(channels=1, height=8, width=8),
    Statistics((100.0,), (60.0,)),
)
KINDS = ("decoder", "prefix", "mixture", "encoder_decoder", "captioner")


def served(folder: Path, kind: str, task: str | None = None, beams: int = 1) -> ServedModel:
    """A served model.

    Args:
        folder: for its weights.
        kind: one of `KINDS`: a family, or a prefix language model.
        task: what it is fine-tuned for. None: nothing.
        beams: of that task.
    """
    family = "decoder" if kind == "prefix" else kind
    of_values = kind == "captioner"
    trunk = TrunkSpec(width=32, depth=2, heads=2, experts=4 if kind == "mixture" else 0)
    spec = ModelSpec(family=family, trunk=trunk, context_tokens=CONTEXT, patch=(4, 4))
    sizes = {"channels": 1, "height": 8, "width": 8} if of_values else {}
    shape = SampleShape(vocabulary=VOCABULARY, **sizes)
    weights = lively(spec, shape, 0)
    digest = save_weights(folder / "weights.safetensors", weights)
    write_json(folder / "model.json", {"version": 2, "model": spec.model_dump(mode="json"), "shape": shape.to_json()})
    tokenizer, trunk_on_disk = _tokenizer(), Pretrained.find(folder, digest)
    fitted = None
    if task is not None:
        settings = FinetuneSpec(task=task, fragment_tokens=12, answer_tokens=8, beams=beams)
        found, facts = find_task(task), Facts(settings, [], tokenizer)
        model = found.model(trunk_on_disk, facts, seed=0)
        model.load_state_dict(lively(spec, shape, 1))
        fitted = TaskModel(found, model.eval(), facts)
    features = IMAGE if of_values else None
    return ServedModel(trunk_on_disk, tokenizer, features, fitted, prefix=kind == "prefix")


def lively(spec: ModelSpec, shape: SampleShape, seed: int) -> dict[str, torch.Tensor]:
    """Weights that tell tokens apart, as fresh ones hardly do."""
    state = initialize(build(spec, shape), seed).state_dict()
    return {name: 3 * value if value.ndim > 1 else value for name, value in state.items()}


def picture(level: int) -> bytes:
    """A PNG file of 8 x 8 pixels."""
    import io

    from PIL import Image

    sink = io.BytesIO()
    Image.frombytes("L", (8, 8), bytes((level * place) % 256 for place in range(64))).save(sink, "PNG")
    return sink.getvalue()


def _tokenizer() -> Tokenizer:
    source = [f"def name_{number}(value): return value + {number}\n" for number in range(200)]
    return train_tokenizer(source, VOCABULARY, SpecialTokensSpec(start=True, sentinels=4))

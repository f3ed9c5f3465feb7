"""How a pretrained trunk becomes a task model: its stem and trunk, and a new head that answers for a whole row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from foundation_core.data.tokens.byte_level import TOKENIZER_FILE
from foundation_core.errors import CheckpointError
from foundation_core.files import read_json, sha256_file
from foundation_core.model.families import build
from foundation_core.model.heads import PooledHead, VocabularyHead, first_token, last_token, mean_of_tokens
from foundation_core.model.initialize import initialize
from foundation_core.model.layout import Layout
from foundation_core.model.transformer import Model, Reader
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec
from foundation_core.weights import load_weights

MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"
MODEL_VERSION = 3

Adapt = Literal["full", "probe"]

POOLS: Mapping[str, Callable[[Tensor, Layout], Tensor]] = {
    "mean": mean_of_tokens,
    "last": last_token,
    "first": first_token,
}
"""How the tokens of a row become one vector, by the name that a recipe uses."""


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model on disk: what it is, and where its weights lie.

    Args:
        sha256: what the weights' file must hash to.
        tokenizer: sha256 of the file of the tokenizer that it was trained with. None: it reads no text, or was trained
            before version 3 of its file, which has it.
    """

    spec: ModelSpec
    shape: SampleShape
    path: Path
    sha256: str
    tokenizer: str | None = None

    @staticmethod
    def find(folder: Path, sha256: str) -> Pretrained:
        """The model of a pretraining result's folder.

        Raises:
            DataError: there is none.
            CheckpointError: a newer version wrote it.
        """
        body = read_json(folder / MODEL_FILE)
        if body["version"] > MODEL_VERSION:
            raise CheckpointError(
                f"{folder / MODEL_FILE} has version {body['version']}",
                allowed=f"versions up to {MODEL_VERSION}",
                fix="upgrade foundation-pipeline",
            )
        # Version 1 knew text alone.
        shape = SampleShape.from_json(body["shape"] if "shape" in body else {"vocabulary": body["vocabulary"]})
        spec = ModelSpec.model_validate(body["model"])
        return Pretrained(spec, shape, folder / WEIGHTS_FILE, sha256, body.get("tokenizer"))

    def check_tokenizer(self, folder: Path) -> None:
        """Compare the tokenizer of a folder with the model's: with another, ids mean other texts.

        Raises:
            CheckpointError: it is another one, or there is none.
        """
        path = folder / TOKENIZER_FILE
        found = sha256_file(path) if path.is_file() else "no file"
        if self.tokenizer is not None and found != self.tokenizer:
            raise CheckpointError(
                f"the tokenizer is not the one the model was trained with: {path} has sha256 {found}",
                allowed=f"sha256 {self.tokenizer}",
                fix="name the corpus that the model was trained on, or pretrain on this one",
            )

    def weights(self) -> dict[str, Tensor]:
        """The tensors, by name.

        Raises:
            CheckpointError: the file is missing, edited or truncated.
        """
        return load_weights(self.path, self.sha256)

    def model(self) -> Reader:
        """The whole model as it was trained, in evaluation mode."""
        model = build(self.spec, self.shape)
        model.load_state_dict(self.weights())
        return model.eval()

    def language_model(self) -> Model:
        """The same, of a family that continues a row of tokens."""
        return cast(Model, self.model())


def task_model(spec: ModelSpec, shape: SampleShape, classes: int, pool: str, seed: int) -> Model:
    """A fresh model of the family with a head that gives (N, classes) logits.

    Args:
        shape: of one sample, which the model is built for.
        pool: how the tokens of a row become one vector: mean or last.
    """
    bare = build(spec, shape)
    model = Model(bare.stem, bare.trunk, PooledHead(spec.trunk.width, classes, POOLS[pool]))
    return initialize(model, seed)


def tagging_model(spec: ModelSpec, shape: SampleShape, classes: int, seed: int) -> Model:
    """A fresh model of the family with a head that gives (N, T, classes) logits, one row of them a token."""
    bare = build(spec, shape)
    return initialize(Model(bare.stem, bare.trunk, VocabularyHead(spec.trunk.width, classes)), seed)


def whole_model(trunk: Pretrained, seed: int) -> Reader:
    """A fresh model of the family as it is, with its own head."""
    return initialize(build(trunk.spec, trunk.shape), seed)


def load_trunk(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put pretrained stem and trunk weights into a task model, by name; its head stays as it is.

    Raises:
        CheckpointError: the weights are of another model.
    """
    _load(model, weights, _is_of_the_trunk)


def load_whole(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put all pretrained weights into a model of the same family.

    Raises:
        CheckpointError: the weights are of another model.
    """
    _load(model, weights, lambda name: True)


def _load(model: nn.Module, weights: Mapping[str, Tensor], is_meant: Callable[[str], bool]) -> None:
    own = {name: value for name, value in model.state_dict().items() if is_meant(name)}
    given = {name: value for name, value in weights.items() if is_meant(name)}
    wrong = sorted(own.keys() ^ given.keys()) or [name for name in own if own[name].shape != given[name].shape]
    if wrong:
        raise CheckpointError(
            f"the pretrained weights do not fit the model: {', '.join(wrong[:4])}",
            allowed="the same parts, name by name and shape by shape",
            fix="run pretrain again, or name the model that the weights belong to",
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])


def freeze(model: nn.Module, adapt: Adapt) -> None:
    """Let move what the way of adapting allows: every parameter (full), or those of the head alone (probe)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(adapt == "full" or not _is_of_the_trunk(name))


def _is_of_the_trunk(name: str) -> bool:
    return name.startswith(("stem.", "trunk."))

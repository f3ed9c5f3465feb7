"""Weights on disk: safetensors files, which hold numbers and names and can run nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from foundation_core.errors import CheckpointError
from foundation_core.files import committed, sha256_file

_METADATA = "foundation"


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 of a model: of the float32 values of its tensors in the order of their names.

    Neither the engine, nor the ranks that hold the model, nor the precision of its products are in it.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """Hex sha256 of the file, which is there whole or not at all; equal weights and metadata make equal bytes."""
    from safetensors.torch import save

    # One key holds all the metadata: the format writes several in an order that changes from process to process.
    header = {_METADATA: json.dumps(dict(metadata or {}), sort_keys=True)}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with committed(path) as sink:
        sink.write(save(whole, header))
    return sha256_file(path)


def load_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Args:
        sha256: what the file must hash to. None: not checked.

    Raises:
        CheckpointError: it is missing, not the one that was written, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path} is not there", fix="run the stage that writes it again")
    if sha256 is not None and (found := sha256_file(path)) != sha256:
        raise CheckpointError(
            f"{path} has sha256 {found}",
            allowed=sha256,
            fix="it was edited or cut short: restore it, or remove its stage",
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}", fix="restore it") from error
    return tensors

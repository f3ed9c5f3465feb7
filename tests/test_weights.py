import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from foundation_core.errors import CheckpointError
from foundation_core.files import sha256_file
from foundation_core.model.transformer import Model
from foundation_core.weights import load_weights, save_weights

Build = Callable[..., Model]


def test_weights_come_back_to_the_bit_with_what_was_said_about_them(tiny_decoder: Build, tmp_path: Path):
    path, model = tmp_path / "weights.safetensors", tiny_decoder(seed=5)
    digest = save_weights(path, model.state_dict(), {"step": "20", "unit": "nats"})
    other = tiny_decoder(seed=6)
    other.load_state_dict(load_weights(path, digest))
    tokens = torch.arange(30)[None]
    assert torch.equal(other(tokens), model(tokens))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["foundation"]) == {"step": "20", "unit": "nats"}
    assert digest == sha256_file(path)


def test_equal_weights_make_equal_bytes_in_every_process(tmp_path: Path):
    program = (
        "import sys, torch; from pathlib import Path; from foundation_core.weights import save_weights\n"
        "tensors = {'b': torch.arange(4.0), 'a': torch.ones(2, 3).T}\n"
        "print(save_weights(Path(sys.argv[1]), tensors, {'one': '1', 'two': '2', 'three': '3'}))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    tensors = {"a": torch.ones(2, 3).T, "b": torch.arange(4.0)}
    assert save_weights(tmp_path / "here", tensors, {"three": "3", "two": "2", "one": "1"}) == there
    assert save_weights(tmp_path / "other", tensors, {"one": "another"}) != there


def test_a_missing_edited_or_truncated_file_is_named(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is not there"):
        load_weights(path)
    digest = save_weights(path, {"a": torch.ones(8)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=digest):
        load_weights(path, digest)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_weights(path)

"""What an anatomy page refuses, that it is the same file for the same model, and that shared tensors are in it once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from foundation_core.data.tokens.byte_level import train_tokenizer
from foundation_core.errors import ConfigError
from foundation_core.evaluate import anatomy
from foundation_core.evaluate.anatomy import Reads, write_anatomy
from foundation_core.evaluate.anatomy_parts import Tensors
from foundation_core.model.transformer import Model
from foundation_core.specs import SpecialTokensSpec
from tests.support.anatomies import GRID, a_model

TOKENIZER = train_tokenizer(["a page of text"], 266, SpecialTokensSpec(mask=True, start=True, sentinels=4))


def described(page: Path) -> dict[str, Any]:
    """What a page is told of its model."""
    found = re.search(r'<script id="described" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    body: dict[str, Any] = json.loads(found[1])
    return body


def test_the_same_model_makes_the_same_file(tiny_decoder: Callable[..., Model], tmp_path: Path):
    first, second = (write_anatomy(tmp_path / name, tiny_decoder(), TOKENIZER).read_bytes() for name in ("a", "b"))
    assert first == second
    assert first != write_anatomy(tmp_path / "c", tiny_decoder(seed=1), TOKENIZER).read_bytes()


def a_word_splitter() -> Tokenizer:
    made = Tokenizer(models.WordLevel({"a": 0}))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_what_the_page_cannot_compute_is_refused_by_name(tiny_decoder: Callable[..., Model], tmp_path: Path):
    foreign = tiny_decoder()
    foreign.trunk.norm = nn.BatchNorm1d(32)
    for model, tokenizer, found in (
        (a_model("dual_encoder"), TOKENIZER, "one space and predicts no tokens"),
        (a_model("masked_autoencoder"), TOKENIZER, "reads no text"),
        (foreign, TOKENIZER, "the part BatchNorm1d"),
        (nn.Linear(2, 2), TOKENIZER, "the model Linear"),
        (a_model("captioner"), TOKENIZER, "without a sample"),
        (tiny_decoder(), a_word_splitter(), "a tokenizer that cuts words by Whitespace"),
    ):
        with pytest.raises(ConfigError, match=found):
            write_anatomy(tmp_path / "page.html", model, tokenizer)
    assert not (tmp_path / "page.html").exists()


def test_samples_of_too_many_patches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(anatomy, "MOST_PATCHES", 11)
    values = torch.zeros(1, GRID.channels, GRID.height, GRID.width)
    with pytest.raises(ConfigError, match=r"samples of 12 patches \(at most 11\)"):
        write_anatomy(tmp_path / "page.html", a_model("captioner"), TOKENIZER, Reads(values=values))


def test_a_model_too_large_for_a_page_is_refused(
    tiny_decoder: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anatomy, "MOST_PARAMETERS", 1000)
    with pytest.raises(ConfigError, match="at most 1,000"):
        write_anatomy(tmp_path / "page.html", tiny_decoder(), TOKENIZER)


def test_a_family_is_data_what_its_rows_may_read_and_what_may_be_hidden(tmp_path: Path):
    mask, start, first = (TOKENIZER.token_to_id(token) for token in ("<|mask|>", "<|start|>", "<|sentinel-0|>"))
    sentinels = {"ids": [first, first + 1, first + 2, first + 3], "spans": True}
    nothing = {"ids": [], "spans": False}
    for family, objective, rows in (
        ("decoder", "next_token", [("text", "causal", nothing, [])]),
        ("decoder", "prefix", [("text", "prefix", nothing, [])]),
        ("encoder", "masked_token", [("text", "both", {"ids": [mask], "spans": False}, [])]),
        ("encoder_decoder", "span_corruption", [
            ("source", "both", sentinels, []), ("target", "causal", nothing, [start])
        ]),
    ):  # fmt: skip
        page = write_anatomy(tmp_path / "page.html", a_model(family), TOKENIZER, Reads(objective=objective))
        found = described(page)["rows"]
        assert [(row["name"], row["reach"], row["hides"], row["begins"]) for row in found] == rows


def test_a_tensor_that_parts_share_is_in_the_page_once(tmp_path: Path):
    source, target = described(write_anatomy(tmp_path / "page.html", a_model("encoder_decoder"), TOKENIZER))["rows"]
    assert source["stem"]["embed"] == target["stem"]["embed"] == target["head"]["weight"]
    untied = described(write_anatomy(tmp_path / "a", a_model("decoder", tie_embeddings=False), TOKENIZER))["rows"][0]
    assert untied["stem"]["embed"] != untied["head"]["weight"]


def test_equal_tensors_that_are_two_stay_two():
    tensors = Tensors()
    first, second = tensors.add(torch.ones(3)), tensors.add(torch.ones(3))
    assert first["at"] != second["at"]

"""What an anatomy page refuses, and that it is the same file for the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from foundation_core.data.tokenizer import train_tokenizer
from foundation_core.errors import ConfigError
from foundation_core.evaluate import anatomy
from foundation_core.evaluate.anatomy import write_anatomy
from foundation_core.model.transformer import Model

TOKENIZER = train_tokenizer(["a page of text"], 260)


def test_the_same_model_makes_the_same_file(tiny_decoder: Callable[..., Model], tmp_path: Path):
    first, second = (write_anatomy(tmp_path / name, tiny_decoder(), TOKENIZER).read_bytes() for name in ("a", "b"))
    assert first == second
    assert first != write_anatomy(tmp_path / "c", tiny_decoder(seed=1), TOKENIZER).read_bytes()


def test_what_the_page_cannot_compute_is_refused_by_name(tiny_decoder: Callable[..., Model], tmp_path: Path):
    both_ways = tiny_decoder()
    both_ways.trunk.causal = False
    for model, tokenizer, found in (
        (tiny_decoder(experts=2), TOKENIZER, "Experts"),
        (both_ways, TOKENIZER, "no decoder of text"),
        (tiny_decoder(), Tokenizer(models.WordLevel({"a": 0})), "a tokenizer of another kind"),
    ):
        with pytest.raises(ConfigError, match=found):
            write_anatomy(tmp_path / "page.html", model, tokenizer)
    assert not (tmp_path / "page.html").exists()


def test_a_model_too_large_for_a_page_is_refused(
    tiny_decoder: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(anatomy, "MOST_PARAMETERS", 1000)
    with pytest.raises(ConfigError, match="at most 1,000"):
        write_anatomy(tmp_path / "page.html", tiny_decoder(), TOKENIZER)

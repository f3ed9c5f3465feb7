"""Texts encoded in bulk are what `tokenizers` makes of each one alone."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation_core.data.tokens import byte_level as tokenizing
from foundation_core.data.tokens.byte_level import END, END_ID, MASK, encode_document, load_tokenizer, train_tokenizer
from foundation_core.data.tokens.encoding import encode_texts
from foundation_core.specs import SpecialTokensSpec

SOURCE = Path(tokenizing.__file__)
MODULES = sorted(Path(SOURCE.parents[1]).rglob("*.py"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(f"ab(._ \n\r\t\0<|>éa\u0301漢😀١9\u00a0{END}{MASK}")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([SOURCE.read_text()], 700, SpecialTokensSpec(mask=True)).save(str(path))
    return path


@pytest.fixture(scope="module")
def alone(path: Path) -> Tokenizer:
    return load_tokenizer(path)


@given(texts=st.lists(TEXTS, max_size=8))
def test_any_texts_have_the_tokens_that_each_has_alone(path: Path, alone: Tokenizer, texts: list[str]) -> None:
    column = pa.chunked_array([texts], pa.large_string())
    assert encode_texts(path, column).to_pylist() == [encode_document(alone, text) for text in texts]


def test_real_source_has_the_same_tokens_and_another_vocabulary_has_others(
    path: Path, alone: Tokenizer, tmp_path: Path
) -> None:
    texts = [module.read_text() for module in MODULES]
    expected = [encode_document(alone, text) for text in texts]
    assert encode_texts(path, pa.chunked_array([texts], pa.large_string())).to_pylist() == expected
    other = tmp_path / "tokenizer.json"
    train_tokenizer(texts[:20], 600).save(str(other))
    assert encode_texts(other, pa.chunked_array([texts], pa.large_string())).to_pylist() != expected


def test_a_text_that_spells_special_tokens_out_holds_none(path: Path) -> None:
    (tokens,) = encode_texts(path, pa.chunked_array([[f"{END} {MASK}"]], pa.large_string())).to_pylist()
    assert tokens[-1] == END_ID
    assert not {0, 1} & set(tokens[:-1])


def test_no_texts_are_no_tokens(path: Path) -> None:
    assert encode_texts(path, pa.chunked_array([], pa.large_string())).to_pylist() == []

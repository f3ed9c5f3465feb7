"""Byte-pair encoding: lossless, exact about bytes, deterministic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from foundation_core.data.tokens.byte_level import (
    END,
    END_ID,
    encode_document,
    load_tokenizer,
    mask_id,
    sentinel_ids,
    start_id,
    token_bytes,
    train_tokenizer,
)
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SpecialTokensSpec, TokenizerSpec

SOURCE = Path(pytest.__file__).parent.parent / "_pytest" / "python.py"
TRAIN = f"""
from pathlib import Path
from foundation_core.data.tokens.byte_level import train_tokenizer
print(train_tokenizer([Path({str(SOURCE)!r}).read_text()], 700).to_str())
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([SOURCE.read_text()], 700)


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.text("ab(._ \n\t<|>é漢😀"))
def test_decoding_gives_the_text_back_and_the_tokens_bytes_add_up(tokenizer: Tokenizer, text: str) -> None:
    ids = encode_document(tokenizer, text)
    assert ids[-1] == END_ID
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert int(token_bytes(tokenizer)[ids].sum()) == len(text.encode())


def test_a_document_that_spells_the_end_token_out_does_not_end_there(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = f"a = '{END}'\n"
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for ours in (tokenizer, load_tokenizer(tmp_path / "tokenizer.json")):
        ids = encode_document(ours, text)
        assert ids.index(END_ID) == len(ids) - 1
        assert ours.decode(ids) == text
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))  # the negative control: the library's default ends it
    assert END_ID in plain.encode(text).ids


def test_the_end_token_has_no_bytes_and_every_other_token_has_some(tokenizer: Tokenizer) -> None:
    lengths = token_bytes(tokenizer)
    assert lengths[END_ID] == 0
    assert tokenizer.token_to_id(END) == END_ID
    assert lengths[1:].min() == 1


def test_a_lines_end_and_the_next_lines_indentation_are_one_token(tokenizer: Tokenizer) -> None:
    (first, *_), (last, *_) = tokenizer.pre_tokenizer.pre_tokenize_str("x\n        return y")[1:3]
    assert (first, last) == ("Ċ" + "Ġ" * 7, "Ġreturn")


@pytest.mark.parametrize("threads", ["1", "2"])
def test_training_gives_the_same_file_in_every_process(tokenizer: Tokenizer, threads: str) -> None:
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    run = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == tokenizer.to_str()


def test_a_vocabulary_that_the_documents_cannot_fill_is_refused_with_the_number_that_they_can() -> None:
    with pytest.raises(ConfigError, match=r"vocabulary=300 .* give 26\d entries") as caught:
        train_tokenizer(["abc abc abc\n"], 300)
    reached = int(caught.value.allowed.split()[2])
    assert train_tokenizer(["abc abc abc\n"], reached).get_vocab_size() == reached


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(path)


def test_special_tokens_are_found_by_name_and_are_no_text() -> None:
    special = SpecialTokensSpec(mask=True, start=True, sentinels=3)
    trained = train_tokenizer([SOURCE.read_text()], 700, special)
    assert [END_ID, mask_id(trained), start_id(trained), *sentinel_ids(trained)] == list(range(6))
    assert trained.get_vocab_size() == 700
    assert token_bytes(trained)[:6].tolist() == [0] * 6
    assert (token_bytes(trained)[6:] > 0).all()
    spelt = "mask <|mask|> start <|start|> sentinel <|sentinel-1|>"
    ids = encode_document(trained, spelt)
    assert not set(ids[:-1]) & set(range(6))
    assert trained.decode(ids[:-1]) == spelt


def test_a_tokenizer_without_a_special_token_says_what_to_set(tokenizer: Tokenizer) -> None:
    for find, field in ((mask_id, "mask"), (start_id, "start"), (sentinel_ids, "sentinels")):
        with pytest.raises(ConfigError, match=rf"ingest\.tokenizer\.special\.{field}"):
            find(tokenizer)


def test_a_vocabulary_has_room_for_its_special_tokens() -> None:
    assert TokenizerSpec(vocabulary=268, special=SpecialTokensSpec(sentinels=10)).special.count == 10
    with pytest.raises(ValueError, match="vocabulary=267 must be at least 268"):
        TokenizerSpec(vocabulary=267, special=SpecialTokensSpec(sentinels=10))

"""Unigram and existing tokenizers: lossless, known by their content, with the ids that the stages need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.sources.modalities import ingest_key
from foundation_core.data.tokens.adopted import adopted_tokenizer
from foundation_core.data.tokens.byte_level import (
    END,
    END_ID,
    MASK,
    encode_document,
    load_tokenizer,
    mask_id,
    token_bytes,
    train_tokenizer,
)
from foundation_core.data.tokens.encoding import encode_texts
from foundation_core.data.tokens.kinds import make_tokenizer, vocabulary_of
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec, SpecialTokensSpec, TokenizerSpec
from foundation_core.stages.ingest import ingest

Build = Callable[..., Any]
SOURCE = Path(pytest.__file__).parent.parent / "_pytest" / "python.py"
SPECIAL = SpecialTokensSpec(mask=True)
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS.filter(lambda character: character != "\u2581")) | st.text("ab(._ \n\t<|>é漢😀١9end")
TRAIN = f"""
from pathlib import Path
from foundation_core.data.tokens.unigram import train_unigram
print(train_unigram([Path({str(SOURCE)!r}).read_text()], 700, ["{END}"]).to_str())
"""


def byte_level(folder: Path) -> Path:
    """As GPT-2 has it: byte-level, its own end token last, a start token in front of each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([SOURCE.read_text()], trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    end = ("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[end])
    tokenizer.save(str(folder / "byte_level.json"))
    return folder / "byte_level.json"


def byte_fallback(folder: Path) -> Path:
    """As Llama 2 has it: spaces as a mark, and a token for each byte that nothing else stands for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["the words of the text\u2581the"] * 9, trainers.BpeTrainer(vocab_size=30))
    trained = json.loads(tokenizer.to_str())["model"]
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.save(str(folder / "byte_fallback.json"))
    return folder / "byte_fallback.json"


def unigram_fallback(folder: Path) -> Path:
    """A Unigram model with a token for each byte, which could take a special token for a word."""
    pieces = [("<unk>", 0.0), ("the", -3.0), ("\u2581", -2.0), ("a", -3.5), ("<", -9.0), (">", -9.0)]
    pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(folder / "unigram_fallback.json"))
    return folder / "unigram_fallback.json"


FILES = (byte_level, byte_fallback, unigram_fallback)


@pytest.fixture(scope="module", params=["unigram", *(make.__name__ for make in FILES)])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer's file as the stage writes it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "unigram":
        spec = TokenizerSpec(kind="unigram", vocabulary=700, special=SPECIAL)
    else:
        file = {make.__name__: make for make in FILES}[request.param](folder)
        spec = TokenizerSpec(kind="existing", path=str(file), special=SPECIAL)
    tokenizer = make_tokenizer([SOURCE.read_text()], spec)
    assert tokenizer.get_vocab_size() == vocabulary_of(spec)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@given(texts=st.lists(TEXTS, max_size=4))
def test_any_text_comes_back_alone_and_in_bulk_and_its_tokens_bytes_add_up(path: Path, texts: list[str]) -> None:
    tokenizer = load_tokenizer(path)
    alone = [encode_document(tokenizer, text) for text in texts]
    for text, ids in zip(texts, alone, strict=True):
        assert ids.index(END_ID) == len(ids) - 1
        assert mask_id(tokenizer) not in ids
        assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == text
        assert int(token_bytes(tokenizer)[ids].sum()) == len(text.encode())
    assert encode_texts(path, pa.chunked_array([texts], pa.large_string())).to_pylist() == alone


def test_a_text_that_spells_special_tokens_out_holds_none(path: Path) -> None:
    tokenizer, text = load_tokenizer(path), f"{END} the{END}{MASK} {MASK}"
    (ids,) = encode_texts(path, pa.chunked_array([[text]], pa.large_string())).to_pylist()
    assert not {END_ID, mask_id(tokenizer)} & set(ids[:-1])
    assert tokenizer.decode(ids[:-1], skip_special_tokens=False) == text


def test_special_tokens_have_ids_of_their_own_and_no_bytes(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    assert tokenizer.token_to_id(END) == END_ID
    assert set(tokenizer.get_vocab().values()) == set(range(tokenizer.get_vocab_size()))
    lengths = token_bytes(tokenizer)
    assert lengths[END_ID] == lengths[mask_id(tokenizer)] == 0


def test_unigram_gives_the_mark_back_that_others_take_for_a_space() -> None:
    tokenizer = make_tokenizer([SOURCE.read_text()], TokenizerSpec(kind="unigram", vocabulary=700))
    assert tokenizer.decode(tokenizer.encode("a\u2581 b").ids) == "a\u2581 b"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_training_unigram_gives_the_same_file_in_every_process(threads: str) -> None:
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    run = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=True)
    spec = TokenizerSpec(kind="unigram", vocabulary=700)
    assert run.stdout.strip() == make_tokenizer([SOURCE.read_text()], spec).to_str()


@pytest.mark.parametrize("texts", [["abc abc abc\n"], []])
def test_a_unigram_vocabulary_that_the_documents_cannot_fill_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"vocabulary=400 .* give 25\d entries"):
        make_tokenizer(texts, TokenizerSpec(kind="unigram", vocabulary=400))


def test_unigram_cuts_words_otherwise_than_byte_pairs() -> None:
    texts = [SOURCE.read_text()]
    unigram, bpe = (make_tokenizer(texts, TokenizerSpec(kind=kind, vocabulary=700)) for kind in ("unigram", "bpe"))
    assert unigram.encode(texts[0]).tokens != bpe.encode(texts[0]).tokens
    assert unigram.get_vocab_size() == bpe.get_vocab_size() == 700


@pytest.mark.parametrize("make", FILES)
def test_an_existing_tokenizer_cuts_as_before_with_ids_one_higher(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    before = Tokenizer.from_file(str(path)).encode(SOURCE.read_text(), add_special_tokens=False).ids
    assert adopted_tokenizer(path, SPECIAL).encode(SOURCE.read_text()).ids == [number + 1 for number in before]


def test_a_tokenizer_of_ones_own_keeps_its_ids_and_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    own = train_tokenizer([SOURCE.read_text()], 700)
    own.save(str(path))
    text = f"{SOURCE.read_text()} {END} {MASK}"
    assert adopted_tokenizer(path, SpecialTokensSpec()).to_str() == own.to_str()
    more = adopted_tokenizer(path, SPECIAL)
    assert more.encode(text).ids == own.encode(text).ids
    assert (mask_id(more), more.get_vocab_size()) == (700, 701)
    more.save(str(tmp_path / "more.json"))
    column = pa.chunked_array([[text]], pa.large_string())
    assert encode_texts(tmp_path / "more.json", column).to_pylist() == [encode_document(own, text)]


def changed(path: Path, **vocabulary: int) -> Path:
    body = json.loads(path.read_text())
    body["model"]["vocab"] |= vocabulary
    path.write_text(json.dumps(body))
    return path


def test_a_tokenizer_that_is_not_fit_for_use_is_refused(tmp_path: Path) -> None:
    lossy = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    lossy.pre_tokenizer = pre_tokenizers.Whitespace()
    lossy.save(str(tmp_path / "lossy.json"))
    (tmp_path / "broken.json").write_text("{}")
    holes, late = tmp_path / "holes", tmp_path / "late"
    holes.mkdir()
    late.mkdir()
    for path, error, words in (
        (tmp_path / "lossy.json", ConfigError, "does not give a text back"),
        (tmp_path / "broken.json", DataError, "is not a tokenizer"),
        (tmp_path / "missing.json", DataError, r"path: .* is not there"),
        (changed(byte_fallback(holes), far=5000), ConfigError, "are not the numbers from 0 to"),
        (changed(byte_fallback(late), **{END: 287}), ConfigError, r"has <\|end\|> with id 287"),
    ):
        with pytest.raises(error, match=words):
            adopted_tokenizer(path, SPECIAL)
    with pytest.raises(ValueError, match="needs path"):
        TokenizerSpec(kind="existing")


def test_an_existing_tokenizer_is_known_by_its_content(tmp_path: Path) -> None:
    def key(path: Path) -> str:
        return ingest_key(IngestSpec(tokenizer=TokenizerSpec(kind="existing", path=str(path))), "content").digest

    path = byte_level(tmp_path)
    first = key(path)
    assert key(path.rename(tmp_path / "moved.json")) == first
    (tmp_path / "moved.json").write_text(json.dumps(json.loads((tmp_path / "moved.json").read_text())))
    assert key(tmp_path / "moved.json") != first
    with pytest.raises(DataError, match="is not there"):
        key(path)


@pytest.mark.parametrize("kind", ["unigram", "existing"])
def test_the_stage_encodes_with_it_and_says_how_finely(
    kind: Any, tmp_path: Path, serial_context: Build, little_spec: Build
) -> None:
    tokenizer = TokenizerSpec(kind=kind, vocabulary=500, path=str(byte_level(tmp_path)))
    result = ingest(little_spec(tokenizer=tokenizer), {}, serial_context(tmp_path / "out"))
    known = result.summary["tokenizer"]
    written = load_tokenizer(tmp_path / "out" / "tokenizer.json")
    assert known["vocabulary"] == written.get_vocab_size() == result.summary["shape"]["vocabulary"]
    assert known["vocabulary"] == {"unigram": 500, "existing": 602}[kind]
    documents = ShardDataset(tmp_path / "out" / "documents").tables()
    texts = {row["document"]: row["text"] for table in documents for row in table.to_pylist()}
    for table in ShardDataset(tmp_path / "out" / "tokens/train").tables():
        for row in table.to_pylist():
            assert written.decode(row["tokens"][:-1]) == texts[row["document"]]

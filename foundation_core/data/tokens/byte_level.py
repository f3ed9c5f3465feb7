"""Text to tokens: byte-level byte-pair encoding in a standard `tokenizer.json`, and what every tokenizer is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SpecialTokensSpec

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILE = "tokenizer.json"
"""Its name beside the shards, and in a package."""

END = "<|end|>"
"""The special token that closes every document."""

END_ID = 0
"""Its id."""

MASK, START = "<|mask|>", "<|start|>"
SENTINEL = "<|sentinel-{}|>"
NO_SPECIAL = SpecialTokensSpec()
_BYTE, _SPACE = re.compile("<0x[0-9A-F]{2}>"), "\u2581"
"""How tokenizers that are not byte-level spell single bytes, and spaces."""

# No token reaches across these pieces. A line's end is one piece with the next line's indentation, but for the last
# space, which belongs to the word behind it: 8% fewer tokens on Python than with GPT-2's pattern.
_LINE_END = r"\n+(?: +(?= ))?"
_PIECES = Regex(
    r"[^\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+(?:" + _LINE_END + ")?"
    r"|" + _LINE_END + r"|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, special: SpecialTokensSpec = NO_SPECIAL) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` entries, the special ones included; the same texts give the same one.

    Raises:
        ConfigError: the texts hold too few pairs to fill the vocabulary.
    """
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *special_tokens(special)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (reached := tokenizer.get_vocab_size()) < vocabulary:
        raise unfilled(vocabulary, reached)
    return _plain(tokenizer)


def untrained() -> Tokenizer:
    """A byte-level byte-pair tokenizer without entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = byte_level_words(), decoders.ByteLevel()
    return tokenizer


def byte_level_words() -> pre_tokenizers.Sequence:
    """What cuts a text into the words that no token reaches across, spelt with one character for each byte."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def unfilled(vocabulary: int, reached: int) -> ConfigError:
    """The error for texts that give fewer entries than wanted."""
    return ConfigError(
        f"tokenizer.vocabulary={vocabulary} cannot be filled: the training documents give {reached} entries",
        allowed=f"at most {reached} with these documents",
        fix="lower ingest.tokenizer.vocabulary or add documents",
    )


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file.

    Raises:
        DataError: it is not there, or no tokenizer.
    """
    try:
        return _plain(Tokenizer.from_str(path.read_text("utf-8")))
    except Exception as error:  # the library raises bare Exception for a file that it cannot read
        raise DataError(f"{path} is not a tokenizer: {error}", fix="run the ingest stage again") from error


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a document, the end token included."""
    # the batched call leaves out the characters' offsets, which cost a third of the time
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return [*ids, END_ID]


def mask_id(tokenizer: Tokenizer) -> int:
    """The id of the token that stands for a hidden one.

    Raises:
        ConfigError: the tokenizer has none.
    """
    return _special_id(tokenizer, MASK, "mask", "true")


def start_id(tokenizer: Tokenizer) -> int:
    """The id of the token that a decoder begins with.

    Raises:
        ConfigError: the tokenizer has none.
    """
    return _special_id(tokenizer, START, "start", "true")


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of the tokens that stand for removed spans, in their order.

    Raises:
        ConfigError: the tokenizer has none.
    """
    first = _special_id(tokenizer, SENTINEL.format(0), "sentinels", "32")
    ids = [first]
    while (number := tokenizer.token_to_id(SENTINEL.format(len(ids)))) is not None:
        ids.append(number)
    return ids


def token_bytes(tokenizer: Tokenizer) -> Tensor:
    """UTF-8 bytes that each token stands for, (V,) int64; 0 for special tokens."""
    import torch  # here, because processes that only encode need not wait for torch

    lengths = torch.zeros(tokenizer.get_vocab_size(), dtype=torch.int64)
    added = tokenizer.get_added_tokens_decoder()
    by_byte = tokenizer.decoder is not None and b'"ByteLevel"' in tokenizer.decoder.__getstate__()
    for token, number in tokenizer.get_vocab().items():
        if number in added:
            lengths[number] = 0 if added[number].special else len(token.encode())
        elif by_byte:  # spelt with one character for each of its bytes
            lengths[number] = len(token)
        else:
            lengths[number] = 1 if _BYTE.fullmatch(token) else len(token.replace(_SPACE, " ").encode())
    return lengths


def special_tokens(spec: SpecialTokensSpec) -> list[str]:
    """The special tokens that a spec asks for beside the end token."""
    sentinels = [SENTINEL.format(number) for number in range(spec.sentinels)]
    return [MASK] * spec.mask + [START] * spec.start + sentinels


def _special_id(tokenizer: Tokenizer, token: str, field: str, value: str) -> int:
    number: int | None = tokenizer.token_to_id(token)
    if number is None:
        raise ConfigError(
            f"the tokenizer has no token {token}, which the objective needs",
            fix=f"set ingest.tokenizer.special.{field} to {value}, and run ingest again",
        )
    return number


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True  # a document that spells <|end|> out must not end there
    return tokenizer

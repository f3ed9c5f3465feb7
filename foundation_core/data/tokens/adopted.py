"""A tokenizer that somebody else made, as the stages need it: its end token has id 0, and it gives each text back.

    tokenizer.json --<|end|> in front, missing special tokens behind--> the same cuts, ids one higher

A file that has `<|end|>` with id 0 keeps its ids. What a file does to whole texts (a start token in front, truncation)
is left out: stages put their own tokens where they need them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from foundation_core.data.tokens.byte_level import END, END_ID, load_tokenizer, special_tokens
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import SpecialTokensSpec

_OPENING = "<|"
"""How each special token begins."""
_PROBE = " Aá\tÑandú  «漢字» 😀\u0301\n\n  x = 0.5;\r\n\x01 fin\u00a0"
"""What a tokenizer must give back: spaces, capital letters, accents, other scripts, control characters."""
_FIX = "name another file in ingest.tokenizer.path, or train one: ingest.tokenizer.kind=bpe"


def adopted_tokenizer(path: Path, special: SpecialTokensSpec) -> Tokenizer:
    """The tokenizer of a file, with the end token and special tokens.

    Raises:
        ConfigError: its end token has another id, its ids have holes, or it does not give a text back.
        DataError: the file is not there, or no tokenizer.
    """
    if not path.is_file():
        raise DataError(f"ingest.tokenizer.path: {path} is not there", fix="name a tokenizer.json")
    return _adopted(path, path.stat().st_mtime_ns, special)


@lru_cache(maxsize=1)
def _adopted(path: Path, changed: int, special: SpecialTokensSpec) -> Tokenizer:
    try:
        load_tokenizer(path)
    except DataError as error:
        raise DataError(error.found, fix=_FIX) from error
    body: dict[str, Any] = json.loads(path.read_text("utf-8"))
    body |= {"post_processor": None, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(body))
    if (number := tokenizer.token_to_id(END)) is None:
        tokenizer = Tokenizer.from_str(json.dumps(_with_end(body)))
    elif number != END_ID:
        raise ConfigError(f"{path} has {END} with id {number}", allowed=f"id {END_ID}, or no {END}", fix=_FIX)
    wanted = [END, *special_tokens(special)]
    tokenizer.add_special_tokens(wanted)
    tokenizer.encode_special_tokens = True
    _check(path, tokenizer)
    return _without_spelt(path, tokenizer, wanted)


def _with_end(body: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's file with the end token in front, and every other id one higher."""
    model = body["model"]
    if model["type"] == "Unigram":  # as probable as its least probable piece, so that what is unknown stays as it is
        least = min((score for _, score in model["vocab"]), default=0.0)
        model = {**model, "vocab": [[END, least], *model["vocab"]]}
        if model["unk_id"] is not None:
            model["unk_id"] += 1
    else:
        model = {**model, "vocab": {END: END_ID, **{token: number + 1 for token, number in model["vocab"].items()}}}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{**token, "id": token["id"] + 1} for token in body["added_tokens"]]
    return {**body, "model": model, "added_tokens": [{"id": END_ID, "content": END, **flags}, *added]}


def _check(path: Path, tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    if set(tokenizer.get_vocab().values()) != set(range(size)):
        raise ConfigError(f"the ids of {path} are not the numbers from 0 to {size - 1}", fix=_FIX)
    again = tokenizer.decode(tokenizer.encode(_PROBE).ids, skip_special_tokens=False)
    if again != _PROBE:
        raise ConfigError(
            f"{path} does not give a text back: {_PROBE!r} became {again!r}",
            allowed="tokenizers over bytes, or with a token for each byte",
            fix=_FIX,
        )


def _without_spelt(path: Path, tokenizer: Tokenizer, special: list[str]) -> Tokenizer:
    """The tokenizer, cut such that a text that spells special tokens out holds none."""
    if not _finds_spelt(tokenizer, special):
        return tokenizer
    cuts = [pre_tokenizers.Split(_OPENING, "isolated")]
    if tokenizer.pre_tokenizer is not None:
        cuts.insert(0, tokenizer.pre_tokenizer)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    if _finds_spelt(tokenizer, special):
        raise ConfigError(f"a text that spells {END} out would end there by {path}", fix=_FIX)
    return tokenizer


def _finds_spelt(tokenizer: Tokenizer, special: list[str]) -> bool:
    numbers = {tokenizer.token_to_id(token) for token in special}
    return any(numbers & set(tokenizer.encode(f"{token} a{token} {token}").ids) for token in special)

"""A Unigram tokenizer over bytes: of all ways to cut a text into its pieces, the most probable one.

    texts --cut, spell bytes--> words with counts --sentencepiece--> pieces with scores --> tokenizer.json

Words are cut and bytes are spelt as for byte-pair encoding, and every byte is a piece: any text comes back as it was.
`tokenizers` can train such a model too, but adds its counts in any order, and each file comes out as another one.

Source of the method: Kudo 2018, Subword Regularization.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from foundation_core.data.tokens.byte_level import byte_level_words, unfilled
from foundation_core.errors import ConfigError, SetupError

_ABSENT = 10.0
"""By how much a byte that the texts have not is less probable, as a logarithm, than the least probable piece."""
_ALL = 1 << 30


def train_unigram(texts: Iterable[str], vocabulary: int, special: list[str]) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` entries, the special ones first; the same texts give the same one.

    Raises:
        ConfigError: the texts hold too few pieces to fill the vocabulary, or more bytes than it has room for.
        SetupError: sentencepiece is not installed.
    """
    cut, counts = byte_level_words(), Counter[str]()
    for text in texts:
        counts.update(word for word, _ in cut.pre_tokenize_str(text))
    absent = sorted(set(pre_tokenizers.ByteLevel.alphabet()).difference(*counts))
    pieces = _trained(counts, vocabulary - len(special) - len(absent))
    if (reached := len(special) + len(absent) + len(pieces)) < vocabulary:
        raise unfilled(vocabulary, reached)
    least = min((score for _, score in pieces), default=0.0) - _ABSENT
    entries = [*((token, 0.0) for token in special), *pieces, *((byte, least) for byte in absent)]
    tokenizer = Tokenizer(models.Unigram(entries, None, False))
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def _trained(counts: Counter[str], pieces: int) -> list[tuple[str, float]]:
    """As many pieces as wanted, or all that there are, with their scores."""
    if not counts:
        return []
    try:
        from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    except ImportError as error:
        raise SetupError(
            "a Unigram tokenizer is trained by sentencepiece, which is not installed",
            fix="pip install 'foundation-pipeline[text]'",
        ) from error
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter([f"{word}\t{count}" for word, count in sorted(counts.items())]),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=pieces + 1,  # it insists on a piece for what is unknown
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentence_length=_ALL,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            num_threads=1,  # several would add in an order of their own
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ConfigError(
            f"no Unigram tokenizer with {pieces} pieces comes of these documents: {error}",
            fix="change ingest.tokenizer.vocabulary, add documents, or set ingest.tokenizer.kind to bpe",
        ) from error
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(number), trained.get_score(number)) for number in range(1, trained.get_piece_size())]

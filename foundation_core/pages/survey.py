"""What a finished ingestion holds, in figures: all that its data card says.

    columns without texts, whole or shard by shard --> losses, lengths, groups, tokens, clusters
    a sample of the texts, document by document ----> words, languages

Memory goes with the number of documents that were dropped, and with the largest shard; not with what was kept. A column
that is not there leaves out what would be said of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foundation_core.data.rules.filters import DROPPED
from foundation_core.data.sources.modalities import QUARANTINED
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer
from foundation_core.pages.clusters import Duplicates, duplicates
from foundation_core.pages.reading import Corpus, columns, whole
from foundation_core.pages.texts import Language, languages, sampled, words_of
from foundation_core.pages.vocabulary import Vocabulary, describe

_BINS = 16
_EXAMPLES = 3
_BINS_AN_OCTAVE = 2


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each bin.

    Args:
        edges: of the bins: one more than there are counts.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Loss:
    """What one rule took.

    Args:
        left: documents that are left behind it.
        values: smallest, median and largest of those that broke the rule; None where there are none.
    """

    rule: str
    documents: int
    left: int
    values: tuple[float, float, float] | None = None
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Reason:
    """Why documents could not be read, up to the first colon and without numbers; examples: id and whole reason."""

    reason: str
    documents: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SplitFacts:
    """What is in a split.

    Args:
        words: of the sample; words are runs of letters, marks and digits.
        word_tokens: tokens of the sample, end tokens left out.
    """

    documents: int
    text_bytes: int
    tokens: int
    words: int
    word_tokens: int

    @property
    def bytes_per_token(self) -> float:
        """Compression by the tokenizer; 0 without tokens."""
        return self.text_bytes / self.tokens if self.tokens else 0.0

    @property
    def tokens_per_word(self) -> float:
        """Fertility of the tokenizer; 0 without words."""
        return self.word_tokens / self.words if self.words else 0.0


Amounts = dict[str, dict[str, int]]
"""An amount by name, the largest first, and in it by split."""


@dataclass(frozen=True)
class Survey:
    """All figures of a data card.

    Args:
        summary: of the ingestion's result.
        losses: what was not read, then what each rule dropped, the largest loss first.
        lengths: histograms of all kept documents, by unit: bytes, tokens; none where all are alike.
        unit: what groups and sources are counted in: tokens; documents where there are none.
        licences: documents under each; 0 where the documents do not say it one by one.
        sample: texts that were looked at for words.
    """

    summary: Mapping[str, Any]
    losses: tuple[Loss, ...]
    lengths: dict[str, Histogram]
    duplicates: Duplicates
    languages: tuple[Language, ...]
    groups: Amounts
    sources: Amounts
    unit: str
    splits: dict[str, SplitFacts]
    licences: dict[str, int]
    quarantine: tuple[Reason, ...]
    vocabulary: Vocabulary | None
    sample: int


def survey(corpus: Corpus, summary: Mapping[str, Any]) -> Survey:
    """The figures of a finished ingestion."""
    texts = sampled(corpus)
    groups, sources, unit = _amounts(corpus)
    quarantined = whole(corpus.quarantined, QUARANTINED)
    vocabulary = None
    if (corpus.folder / TOKENIZER_FILE).exists():
        tokenizer = load_tokenizer(corpus.folder / TOKENIZER_FILE)
        vocabulary = describe(tokenizer, columns(corpus.rows["train"], ["tokens"]))
    return Survey(
        summary=summary,
        losses=_losses(corpus, quarantined),
        lengths=_lengths(corpus),
        duplicates=duplicates(corpus),
        languages=languages(corpus, texts),
        groups=groups,
        sources=sources,
        unit=unit,
        splits=_splits(corpus, summary, texts),
        licences=_licences(corpus, summary),
        quarantine=_reasons(quarantined),
        vocabulary=vocabulary,
        sample=len(texts),
    )


def _losses(corpus: Corpus, quarantined: pa.Table) -> tuple[Loss, ...]:
    dropped = whole(corpus.dropped, pa.schema([DROPPED.field("rule"), DROPPED.field("value")]))
    left = corpus.documents.rows + len(dropped)
    losses = [Loss("could not be read", len(quarantined), left)] if len(quarantined) else []
    counts = pc.fill_null(dropped["rule"], "not stated").value_counts().to_pylist()
    for rule, documents in sorted(((row["values"], row["counts"]) for row in counts), key=lambda of: (-of[1], of[0])):
        left -= documents
        values = dropped.filter(pc.equal(dropped["rule"], rule))["value"].drop_null()
        losses.append(Loss(rule, documents, left, *_described(values.filter(pc.is_finite(values)))))
    return tuple(losses)


def _described(values: pa.ChunkedArray) -> tuple[tuple[float, float, float] | None, Histogram | None]:
    if not len(values):
        return None, None
    low, middle, high = pc.quantile(values, [0, 0.5, 1]).to_pylist()
    width = (high - low) / _BINS or 1.0
    first = low if high > low else low - _BINS / 2
    bins = pc.min_element_wise(pc.floor(pc.divide(pc.subtract(values, first), width)), _BINS - 1)
    counts = _counted(bins)
    edges = tuple(first + width * number for number in range(_BINS + 1))
    return (low, middle, high), Histogram(edges, tuple(counts[number] for number in range(_BINS)))


def _counted(whole_numbers: pa.ChunkedArray) -> Counter[int]:
    rows = whole_numbers.value_counts().to_pylist()
    return Counter({int(row["values"]): row["counts"] for row in rows})


def _lengths(corpus: Corpus) -> dict[str, Histogram]:
    sizes = (table["bytes"] for table in columns(corpus.documents, ["bytes"]) if table.num_columns)
    tokens = (
        pc.list_value_length(table["tokens"])
        for dataset in corpus.rows.values()
        for table in columns(dataset, ["tokens"])
        if table.num_columns
    )
    found = {"bytes": _by_octaves(sizes), "tokens": _by_octaves(tokens)}
    return {unit: histogram for unit, histogram in found.items() if len(histogram.counts) > 1}


def _by_octaves(lengths: Iterable[pa.ChunkedArray]) -> Histogram:
    """Lengths in bins of which each is as much longer than the one before."""
    counts = Counter[int]()
    for some in lengths:
        octaves = pc.log2(pc.cast(pc.max_element_wise(some, 1), pa.float64()))
        counts += _counted(pc.floor(pc.multiply(octaves, _BINS_AN_OCTAVE)))
    if not counts:
        return Histogram((), ())
    bins = range(min(counts), max(counts) + 1)
    edges = tuple(2.0 ** (step / _BINS_AN_OCTAVE) for step in (*bins, bins.stop))
    return Histogram(edges, tuple(counts[step] for step in bins))


def _amounts(corpus: Corpus) -> tuple[Amounts, Amounts, str]:
    """Tokens (or documents) by group and split, and by source and split; their unit."""
    groups, sources, unit = Counter[tuple[str, str]](), Counter[tuple[str, str]](), "documents"
    for split, dataset in corpus.rows.items():
        for table in columns(dataset, ["document", "group", "source", "tokens"]):
            amount = pa.repeat(pa.scalar(1, pa.int64()), len(table))
            if "tokens" in table.schema.names:
                amount, unit = pc.cast(pc.list_value_length(table["tokens"]), pa.int64()), "tokens"
            source = table["source"] if "source" in table.schema.names else _first_part(table["document"])
            for found, names in ((groups, table["group"]), (sources, source)):
                sums = pa.table({"name": names, "amount": amount}).group_by("name", use_threads=False)
                for row in sums.aggregate([("amount", "sum")]).to_pylist():
                    found[row["name"], split] += row["amount_sum"]
    return _sorted(groups), _sorted(sources), unit


def _first_part(documents: pa.ChunkedArray) -> pa.ChunkedArray:
    """The name of the source, with which each id begins."""
    return pc.replace_substring_regex(documents, "/.*", "")


def _sorted(found: Mapping[tuple[str, str], int]) -> Amounts:
    amounts: Amounts = {}
    for (name, split), amount in found.items():
        amounts.setdefault(name, {})[split] = amount
    return dict(sorted(amounts.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def _splits(corpus: Corpus, summary: Mapping[str, Any], texts: pa.Table) -> dict[str, SplitFacts]:
    words = words_of(corpus, texts)
    return {
        split: SplitFacts(facts["documents"], facts["text_bytes"], facts["tokens"], *words.get(split, (0, 0)))
        for split, facts in summary["splits"].items()
    }


def _licences(corpus: Corpus, summary: Mapping[str, Any]) -> dict[str, int]:
    counts = Counter[str]()
    for table in columns(corpus.documents, ["licence"]):
        if table.num_columns:
            counts.update(table["licence"].to_pylist())
    if not counts:
        return {summary["source"].get("licence") or "not stated": 0}
    return {licence or "not stated": documents for licence, documents in counts.most_common()}


def _reasons(quarantined: pa.Table) -> tuple[Reason, ...]:
    kinds = pc.replace_substring_regex(pc.replace_substring_regex(quarantined["reason"], ": .*", ""), " [0-9]+", " …")
    reasons = []
    for kind, documents in sorted(Counter(kinds.to_pylist()).items(), key=lambda item: (-item[1], item[0])):
        some = quarantined.filter(pc.equal(kinds, kind)).slice(0, _EXAMPLES).to_pylist()
        reasons.append(Reason(kind, documents, tuple((row["document"], row["reason"]) for row in some)))
    return tuple(reasons)

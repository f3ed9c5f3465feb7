"""How a data set was made, in sentences: what was done to its items, in order, and what nobody did.

IngestSpec, summary --steps, limits--> Markdown of one line each
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from foundation_core.evaluate.badge import badge
from foundation_core.specs import IngestSpec
from foundation_core.specs.quality import STOP_WORDS, FilterSpec

_RULES = {
    "gopher": "Gopher's rules for prose (Rae et al. 2021)",
    "repetition": "Gopher's rules against repetition (Rae et al. 2021)",
    "c4": "C4's rules for pages (Raffel et al. 2020)",
    "fineweb": "FineWeb's rules for lines (Penedo et al. 2024)",
}
_CLEANING = {
    "encoding": "texts that were decoded by the wrong table are repaired",
    "control": "control characters are removed",
    "lines": "lines that are no prose are removed",
    "personal": "personal data and secrets are replaced by their kind",
}


def steps(spec: IngestSpec, summary: Mapping[str, Any]) -> list[str]:
    """What was done, in the order in which it was."""
    cleaned = [said for name, said in _CLEANING.items() if getattr(spec.cleaning, name).use]
    return [
        *([summary["reading"]] if summary.get("reading") else []),
        *([f"{cut}."] if (cut := cut_told(summary)) else []),
        *([f"Cleaning: {'; '.join(cleaned)}."] if cleaned else []),
        f"Evaluation sets: {badge(summary)}.",
        f"Rules: {'; '.join(_rules(spec)) or 'none'}.",
        f"Filters: {', '.join(_bounds(spec.filters)) or 'none'}.",
        _copies(spec),
        *_tokenised(summary),
        *_scaled(summary),
    ]


def cut_told(summary: Mapping[str, Any]) -> str:
    """How many items are longer than their values; "" where none is."""
    if not summary.get("cut"):
        return ""
    read = summary["documents"]["in"] - summary["documents"]["quarantined"]
    return f"{summary['cut']:,} of {read:,} items are longer than their values and were cut"


def limits(spec: IngestSpec) -> list[str]:
    """What nobody did, which whoever trains on the data should know."""
    personal = spec.cleaning.personal
    missing = (
        f"Of personal data only {_listed(kind.replace('_', ' ') for kind in personal.kinds)} were looked for: names,"
        " addresses, faces and voices are still in it."
        if personal.use
        else "Nobody searched it for personal data: names, addresses, faces and voices are still in it."
    )
    near = "Only exact copies were looked for; documents that are nearly the same may lie on two sides of the split."
    none = "Copies were not looked for; the same document may lie on two sides of the split."
    return [missing, *([] if spec.fuzzy_dedup.use else [near if spec.exact_dedup else none])]


def _rules(spec: IngestSpec) -> list[str]:
    quality = spec.quality
    used = [said for name, said in _RULES.items() if getattr(quality, name).use]
    spoken = "its language" if quality.by_language else quality.language
    language = [f"probability of {spoken} >= {quality.least_language:g}"] if quality.least_language else []
    one = [f"texts in {quality.language}"] if used else []
    return [*(_each_language(spec) if quality.by_language else one), *language, *used]


def _each_language(spec: IngestSpec) -> list[str]:
    others = "dropped" if spec.quality.other_languages == "drop" else "judged by what needs no list"
    return [f"each text by the lists of its own language ({', '.join(STOP_WORDS)}), those in others {others}"]


def _bounds(filters: Iterable[FilterSpec]) -> list[str]:
    return [
        f"`{rule.measure} {sign} {bound:g}`"
        for rule in filters
        for sign, bound in ((">=", rule.at_least), ("<=", rule.at_most))
        if bound is not None
    ]


def _copies(spec: IngestSpec) -> str:
    exact = "of exact copies (the same content) one was kept" if spec.exact_dedup else "copies were kept"
    paragraphs = "; of the same paragraph the first was kept" if spec.paragraph_dedup.use else ""
    near = f"; of texts alike by {spec.fuzzy_dedup.similarity:g} or more one was kept" if spec.fuzzy_dedup.use else ""
    return f"Copies: {exact}{paragraphs}{near}."


def _tokenised(summary: Mapping[str, Any]) -> list[str]:
    if "tokenizer" not in summary:
        return []
    tokenizer = summary["tokenizer"]
    trained = ", trained on the training documents" if tokenizer.get("trained", True) else ""
    return [
        f"Tokenised by {tokenizer['kind']} with {tokenizer['vocabulary']:,} entries{trained}:"
        f" {summary['bytes_per_token']:.2f} bytes a token. `{tokenizer['end']}` closes each text."
    ]


def _scaled(summary: Mapping[str, Any]) -> list[str]:
    if not summary.get("statistics"):
        return []
    mean, std = (", ".join(f"{figure:.4g}" for figure in summary["statistics"][name]) for name in ("mean", "std"))
    return [f"Models read (value - mean) / deviation, both of the training split, by channel: {mean} and {std}."]


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last

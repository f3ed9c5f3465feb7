"""The specs of quality: published rules on texts, each bound a field, and the languages that they know."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation_core.specs.base import Spec, placement

Language = Literal["en", "es", "pt", "fr", "de", "it"]
"""A language with lists of its own."""
EACH: Literal["each"] = "each"
"""Stands for the language that each document is found to be in."""
OTHERS = ""
"""Stands for the languages that have no lists."""

STOP_WORDS: dict[Language, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "es": ("de", "la", "que", "el", "en", "y", "los", "con"),
    "pt": ("de", "a", "que", "o", "em", "e", "do", "com"),
    "fr": ("de", "la", "le", "et", "les", "des", "que", "est"),
    "de": ("der", "die", "und", "in", "den", "von", "zu", "mit"),
    "it": ("di", "che", "la", "il", "e", "per", "un", "con"),
}
"""Words that a text of some length cannot do without. English: the list of Gopher (Rae et al. 2021, section A.1.1). The
others: eight short and frequent words of that language's list in Snowball (Porter 2001, snowballstem.org, `stop.txt`);
which eight is our choice and published nowhere else. Other lists, such as those of FineWeb-2 (Penedo et al. 2025), go
into `ingest.quality.gopher.stop_words`."""


class FilterSpec(Spec):
    """Keeps the documents whose measure lies within the bounds; the others are kept beside, with rule and value."""

    measure: str
    """Registered measure of a document: characters, words, alphanumeric_fraction, repeated_5_grams, ..."""
    at_least: float | None = None
    """Smallest value that is kept."""
    at_most: float | None = None
    """Largest value that is kept."""

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"filter on {self.measure!r} has neither at_least nor at_most: it would keep everything")
        return self


class GopherSpec(Spec):
    """Rules for prose. Source of every bound: Rae et al. 2021, Scaling Language Models (Gopher), section A.1.1."""

    use: bool = False
    """Whether these rules are applied."""
    least_words: int = Field(50, ge=0)
    """Words that a document must have; punctuation alone is none."""
    most_words: int = Field(100_000, ge=1)
    """Words that a document may have."""
    least_mean_word_characters: float = Field(3.0, ge=0)
    """Characters that its words must have on average."""
    most_mean_word_characters: float = Field(10.0, gt=0)
    """Characters that its words may have on average."""
    most_hashes_a_word: float = Field(0.1, ge=0)
    """Hash signs for each word."""
    most_ellipses_a_word: float = Field(0.1, ge=0)
    """Ellipses for each word."""
    most_bullet_lines: float = Field(0.9, ge=0, le=1)
    """Share of lines that begin with a bullet."""
    most_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    """Share of lines that end with an ellipsis."""
    least_alphabetic_words: float = Field(0.8, ge=0, le=1)
    """Share of words that have a letter."""
    least_stop_words: int = Field(2, ge=0)
    """Different stop words of its language that a document must have."""
    stop_words: tuple[str, ...] = ()
    """Which words these are. Empty: those of the language."""

    def stop_words_of(self, language: str) -> tuple[str, ...]:
        """The words that are looked for in texts of a language; none in one that has no list."""
        return self.stop_words or next((words for known, words in STOP_WORDS.items() if known == language), ())

    def filters(self) -> tuple[FilterSpec, ...]:
        """The rules in their order."""
        return (
            FilterSpec(measure="words", at_least=self.least_words, at_most=self.most_words),
            FilterSpec(
                measure="mean_word_characters",
                at_least=self.least_mean_word_characters,
                at_most=self.most_mean_word_characters,
            ),
            FilterSpec(measure="hash_ratio", at_most=self.most_hashes_a_word),
            FilterSpec(measure="ellipsis_ratio", at_most=self.most_ellipses_a_word),
            FilterSpec(measure="bullet_line_fraction", at_most=self.most_bullet_lines),
            FilterSpec(measure="ellipsis_line_fraction", at_most=self.most_ellipsis_lines),
            FilterSpec(measure="alphabetic_word_fraction", at_least=self.least_alphabetic_words),
            FilterSpec(measure="stop_words", at_least=self.least_stop_words),
        )


class RepetitionSpec(Spec):
    """Rules against repetition. Source of every bound: Rae et al. 2021, table A1."""

    use: bool = False
    """Whether these rules are applied."""
    most_repeated_paragraphs: float = Field(0.3, ge=0, le=1)
    """Share of paragraphs that came before."""
    most_repeated_paragraph_characters: float = Field(0.2, ge=0, le=1)
    """Share of characters that stand in such paragraphs."""
    most_repeated_lines: float = Field(0.3, ge=0, le=1)
    """Share of lines that came before."""
    most_repeated_line_characters: float = Field(0.2, ge=0, le=1)
    """Share of characters that stand in such lines."""
    most_of_top_grams: tuple[float, float, float] = (0.20, 0.18, 0.16)
    """Share of characters in the run of 2, 3 and 4 words that comes most often."""
    most_of_repeated_grams: tuple[float, float, float, float, float, float] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    """Share of characters in runs of 5, 6, 7, 8, 9 and 10 words that came before."""

    def filters(self) -> tuple[FilterSpec, ...]:
        """The rules in their order."""
        return (
            FilterSpec(measure="repeated_paragraph_fraction", at_most=self.most_repeated_paragraphs),
            FilterSpec(measure="repeated_paragraph_characters", at_most=self.most_repeated_paragraph_characters),
            FilterSpec(measure="repeated_line_fraction", at_most=self.most_repeated_lines),
            FilterSpec(measure="repeated_line_characters", at_most=self.most_repeated_line_characters),
            *(
                FilterSpec(measure=f"top_{n}_gram", at_most=share)
                for n, share in enumerate(self.most_of_top_grams, start=2)
            ),
            *(
                FilterSpec(measure=f"repeated_{n}_grams", at_most=share)
                for n, share in enumerate(self.most_of_repeated_grams, start=5)
            ),
        )


class C4Spec(Spec):
    """Rules by which whole pages go; those by which lines go are a step before them (`ingest.cleaning.lines`).

    C4's last step, which keeps of each three sentences in a row the first ones of the corpus, is not among them: what
    is said again is the work of `exact_dedup`, `fuzzy_dedup` and `paragraph_dedup`.

    Source of every bound: Raffel et al. 2020, Exploring the Limits of Transfer Learning (C4), section 2.2.
    """

    use: bool = False
    """Whether these rules are applied."""
    least_sentences: int = Field(5, ge=0)
    """Sentences that a page must have; C4's code: 3."""
    most_lorem_ipsum: int = Field(0, ge=0)
    """How often it may hold "lorem ipsum", the Latin of placeholders in every language."""
    most_curly_brackets: int = Field(0, ge=0)
    """Opening curly brackets that it may have: prose has none, and code has."""
    bad_words: str | None = placement(None)
    """A file of words or phrases, one a line: a page that holds one of them goes. Empty: nobody looks. C4 takes the
    list of its language from https://github.com/LDNOOBW, with a licence of its own; none comes with this library."""

    def filters(self) -> tuple[FilterSpec, ...]:
        """The rules in their order."""
        return (
            FilterSpec(measure="lorem_ipsum", at_most=self.most_lorem_ipsum),
            FilterSpec(measure="curly_brackets", at_most=self.most_curly_brackets),
            FilterSpec(measure="sentences", at_least=self.least_sentences),
        )


class FineWebSpec(Spec):
    """Rules on lines that are not blank.

    Source of every bound: Penedo et al. 2024, The FineWeb Datasets, as datatrove's FineWebQualityFilter has them.
    FineWeb applies Gopher's and C4's before them, but for C4's on end marks (`ingest.cleaning.lines.needs_end_mark`).
    """

    use: bool = False
    """Whether these rules are applied."""
    least_end_marked_lines: float = Field(0.12, ge=0, le=1)
    """Share of lines that end with an end mark."""
    end_marks: tuple[str, ...] = tuple(".!?‼‽⁇⁈⁉。｡．！？؟")
    """Which marks these are, one character each: those that end a sentence in Unicode's eyes (Sentence_Terminal)."""
    most_short_lines: float = Field(0.67, ge=0, le=1)
    """Share of lines that are short."""
    short_line_characters: int = Field(30, ge=0)
    """Characters that a short line has at the most."""
    most_repeated_line_characters: float = Field(0.01, ge=0, le=1)
    """Share of characters that stand in lines that came before."""
    most_newlines_a_word: float = Field(0.3, ge=0)
    """Newlines for each word; punctuation is one."""

    @field_validator("end_marks")
    @classmethod
    def _are_characters(cls, marks: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(marks)) < len(marks) or any(len(mark) != 1 for mark in marks):
            raise ValueError("end_marks must be single characters, each once")
        return marks

    def filters(self) -> tuple[FilterSpec, ...]:
        """The rules in their order."""
        return (
            FilterSpec(measure="end_marked_line_fraction", at_least=self.least_end_marked_lines),
            FilterSpec(measure="short_line_fraction", at_most=self.most_short_lines),
            FilterSpec(measure="repeated_filled_line_characters", at_most=self.most_repeated_line_characters),
            FilterSpec(measure="newlines_a_word", at_most=self.most_newlines_a_word),
        )


class QualitySpec(Spec):
    """Published rules on texts. A document falls to the first one that it breaks."""

    language: Language | Literal["each"] = "en"
    """Language of the texts: whose stop words, end marks and phrases are looked for. each: every document's own, which
    is found, kept beside it and counted."""
    other_languages: Literal["judge", "drop"] = "judge"
    """With language=each, documents in a language without lists: judge them by the rules that need none, or drop
    them."""
    least_language_share: float = Field(0.5, ge=0, le=1)
    """Share of a sample of the texts that must be in the language; rules on texts of another one are refused. 0: nobody
    looks. With language=each there is nothing to look for."""
    least_language: float = Field(0.0, ge=0, le=1)
    """Probability of the language that a text must have; FineWeb (Penedo et al. 2024): 0.65. 0: nobody looks. With
    language=each: of the one that it is found to be in."""
    gopher: GopherSpec = GopherSpec()
    """Rules for prose."""
    repetition: RepetitionSpec = RepetitionSpec()
    """Rules against repetition."""
    c4: C4Spec = C4Spec()
    """Rules for pages of prose."""
    fineweb: FineWebSpec = FineWebSpec()
    """Rules for pages of the web."""

    @property
    def by_language(self) -> bool:
        """Whether each document is judged by the lists of its own language."""
        return self.language == EACH

    def filters(self) -> tuple[FilterSpec, ...]:
        """The rules that are applied, in their order."""
        sets = (self.gopher, self.repetition, self.c4, self.fineweb)
        return tuple(one for rules in sets if rules.use for one in rules.filters())


class ParagraphDedupSpec(Spec):
    """Removes paragraphs, parted by blank lines, that an earlier document has, in the order of document ids."""

    use: bool = False
    """Whether such paragraphs are looked for."""
    least_characters: int = Field(100, ge=1)
    """Characters that a paragraph must have to be removed, spaces at its ends not counted: headings and short lines
    repeat for good reasons. No published bound."""
    most_lost_fraction: float = Field(0.5, ge=0, lt=1)
    """Share of a text's characters that may stand in removed paragraphs; a document that would lose more is dropped. No
    published bound."""


class FuzzyDedupSpec(Spec):
    """Keeps one of several texts that say nearly the same (MinHash, Broder 1997; LSH, Indyk and Motwani 1998)."""

    use: bool = False
    """Whether such texts are looked for."""
    similarity: float = Field(0.8, gt=0, le=1)
    """Share of two texts' runs of words that both must have (Jaccard's) to be copies; measured, not estimated."""
    shingle_words: int = Field(5, ge=1)
    """Words of a run."""
    bands: int = Field(16, ge=1, le=64)
    """Keys of each text; texts that share one are compared. More find more pairs, and compare more that are none."""
    band_rows: int = Field(7, ge=1, le=32)
    """Entries of the signature in a key: 16 keys of 7 find a pair of similarity 0.8 with a chance of 0.98."""
    survivor: Literal["longest", "first"] = "longest"
    """Which one of a cluster stays: the longest, or the one with the smallest id."""

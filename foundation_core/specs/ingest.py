"""The specs of ingestion: where raw items are, how each modality reads them, how text becomes tokens."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundation_core.specs.base import Spec, placement
from foundation_core.specs.cleaning import CleaningSpec
from foundation_core.specs.decontamination import DecontaminationSpec
from foundation_core.specs.quality import FilterSpec, FuzzyDedupSpec, ParagraphDedupSpec, QualitySpec
from foundation_core.specs.reading import ReadingSpec


class OneSourceSpec(Spec):
    """Where the raw items are: files of text, images, recordings, tables."""

    kind: str = "python_stdlib"
    """Registered source: python_stdlib, folder, table, book, several, image_folder, image_table, audio_folder,
    audio_table, series_table, wave_folder, digits, digits_with_captions, spoken_digits, spoken_digit_strings, or one
    that an installed package adds."""
    path: str | None = placement(None)
    """Folder or table to read, or files of a folder by *, as in texts/*.jsonl.gz; not needed by sources that a library
    brings. Its place is not part of the identity, its content is."""
    pattern: str | None = None
    """Which files below the folder are items, or tables of them; several have a vertical bar between them, as in
    **/*.md | **/*.rst. Empty: those that the kind of source reads. A folder of texts reads what is text by its name,
    and leaves out hidden files, tables and all else, which is counted."""
    text_field: str = placement("text")
    """Column of a table that holds the texts; a dot leads into an object, as in data.body."""
    id_field: str | None = placement(None)
    """Column of a table that holds the ids of its rows, texts or whole numbers; documents are then named by them
    (table/ID), wherever in the tables they stand. Empty: by table and row number (table/reviews.jsonl/000000012)."""
    licence_field: str | None = placement(None)
    """Column of a table that holds the licence of each text. Empty: that of the source."""
    licence: str | None = None
    """Licence of the documents that state none, for the cards."""
    label_field: str | None = placement(None)
    """Column of a table that holds the labels, which become the items' groups. Empty: no labels."""
    image_field: str = placement("image")
    """Column of a table that holds the images: their bytes, or their paths beside the table."""
    audio_field: str = placement("audio")
    """Column of a table that holds the recordings: their bytes, or their paths beside the table."""
    caption_field: str | None = placement(None)
    """Column of a table that holds the captions. Empty: no captions."""
    reading: ReadingSpec = ReadingSpec()
    """How much of a file is taken for one text."""
    label_pattern: str | None = None
    """Regular expression with one group that finds the label in the path of an image or recording. Empty: its first
    folder is the label."""

    @field_validator("label_pattern")
    @classmethod
    def _finds_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"label_pattern={pattern!r} is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"label_pattern={pattern!r} has {groups} groups; it needs one: the label")
        return pattern


class SourceSpec(OneSourceSpec):
    """Where the raw items are: one source, or several under names of their own."""

    parts: dict[str, OneSourceSpec] = Field({})
    """Sources of kind=several, by the names that their documents keep, and that pretrain.mixture can weigh. A document
    without a label gets its source's name as its group."""
    withdrawn: tuple[str, ...] = ()
    """Documents that are left out although they are there, by id, in which * and ? may stand for others
    (folder/letters/*), and sources, by their names in parts. What was dropped as a copy of one of them comes back."""

    @property
    def kind_of_items(self) -> str:
        """The kind of source that says what the items are: that of the first of several, which are alike."""
        return next(iter(self.parts.values()), self).kind

    @field_validator("parts")
    @classmethod
    def _has_plain_names(cls, parts: dict[str, OneSourceSpec]) -> dict[str, OneSourceSpec]:
        if wrong := [name for name in parts if not re.fullmatch(r"[\w.-]+", name)]:
            raise ValueError(f"the name {wrong[0]!r} of a source must be of letters, digits, _ . and - alone")
        return parts

    @field_validator("withdrawn")
    @classmethod
    def _names_something(cls, withdrawn: tuple[str, ...]) -> tuple[str, ...]:
        if not all(withdrawn):
            raise ValueError("withdrawn holds an empty text; it names documents by id, or sources by name")
        return withdrawn

    @model_validator(mode="after")
    def _has_parts_where_they_are_read(self) -> Self:
        if self.parts and self.kind != "several":
            raise ValueError(f"parts are read by kind=several alone, and kind is {self.kind}")
        return self


class SplitSpec(Spec):
    """One split by a hash of the document id, used by every later stage. Where a source states a test set, that one is
    the test, and the fractions divide the rest."""

    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of documents that choose checkpoints and learning rates."""
    test_fraction: float = Field(0.15, gt=0, lt=0.5)
    """Share of documents that are scored once, at the end."""
    seed: int = 0
    """Key of the hash."""


class SpecialTokensSpec(Spec):
    """Special tokens beside the end token, for objectives that need them; they take the ids behind it."""

    mask: bool = False
    """A token that stands for a hidden one."""
    start: bool = False
    """A token that a decoder begins with."""
    sentinels: int = Field(0, ge=0, le=256)
    """Tokens that stand for a removed span, each for another one."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.mask + self.start + self.sentinels


class TokenizerSpec(Spec):
    """How text becomes tokens: trained on the training documents, or brought along."""

    kind: Literal["bpe", "unigram", "existing"] = "bpe"
    """bpe: byte-level byte-pair encoding. unigram: the most probable pieces, over bytes (Kudo 2018). existing: a
    tokenizer.json that is there already."""
    path: str | None = placement(None)
    """The tokenizer.json of an existing one. Its place is not part of the identity, its content is."""
    vocabulary: int = Field(4096, ge=258, le=65536)
    """Entries, the 256 bytes and the special tokens included. An existing tokenizer has those that it has."""
    training_bytes: int = Field(250_000_000, ge=1000)
    """Bytes of text that it learns from; of more, a sample of the training documents of about as many. The memory and
    the time of its training go with the different words in them."""
    special: SpecialTokensSpec = SpecialTokensSpec()
    """Special tokens that objectives need."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.kind == "existing" and self.path is None:
            raise ValueError("kind=existing needs path: the tokenizer.json that is there already")
        least = 258 + self.special.count
        if self.vocabulary < least:
            raise ValueError(
                f"vocabulary={self.vocabulary} must be at least {least}: 256 bytes, the end token,"
                f" {self.special.count} special tokens and one pair"
            )
        return self


class ImageSpec(Spec):
    """How an image becomes numbers: square, of one size, 0 to 255."""

    size_pixels: int = Field(32, ge=4, le=1024)
    """Height and width."""
    channels: Literal[1, 3] = 3
    """3: red, green, blue. 1: brightness."""
    crop: Literal["center", "none"] = "center"
    """center scales the shorter side to the size and takes the middle; none scales both sides, whatever the image's
    proportions."""


class AudioSpec(Spec):
    """How a recording becomes a log-mel spectrogram of one size: bins by frames."""

    rate_hz: int = Field(16_000, ge=1_000, le=192_000)
    """Samples a second; a recording of another rate is resampled, several channels become their mean."""
    mel_bins: int = Field(64, ge=4, le=256)
    """Bands of the mel scale, from 0 Hz to half the rate."""
    frames: int = Field(128, ge=2, le=10_000)
    """Frames of a spectrogram: a longer recording is cut, a shorter one is followed by silence."""
    window_ms: float = Field(25.0, gt=0, le=1000)
    """Milliseconds that a frame looks at."""
    hop_ms: float = Field(10.0, gt=0, le=1000)
    """Milliseconds from one frame to the next."""

    @property
    def window_samples(self) -> int:
        """Samples that a frame looks at."""
        return round(self.rate_hz * self.window_ms / 1000)

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next."""
        return round(self.rate_hz * self.hop_ms / 1000)

    @model_validator(mode="after")
    def _frames_hold_samples(self) -> Self:
        if self.window_samples < 16 or self.hop_samples < 1:
            raise ValueError(
                f"window_ms={self.window_ms:g} and hop_ms={self.hop_ms:g} are {self.window_samples} and"
                f" {self.hop_samples} samples at rate_hz={self.rate_hz}; they must be at least 16 and 1"
            )
        if self.hop_samples > self.window_samples:
            raise ValueError(
                f"hop_ms={self.hop_ms:g} must not exceed window_ms={self.window_ms:g}: sound would be lost"
            )
        return self


class SeriesSpec(Spec):
    """How a table of numbers becomes windows of one length."""

    columns: tuple[str, ...] = ()
    """Columns that are read, each a channel. A series needs at least one."""
    window: int = Field(32, ge=2, le=100_000)
    """Rows of a window."""
    stride: int = Field(32, ge=1)
    """Rows from one window to the next."""

    @model_validator(mode="after")
    def _names_each_column_once(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns names one of {', '.join(self.columns)} twice")
        return self


class IngestSpec(Spec):
    """Raw items -> rows in Arrow shards: tokens of texts, values of images, audio and series."""

    source: SourceSpec = SourceSpec()
    """Where the raw items are."""
    cleaning: CleaningSpec = CleaningSpec()
    """Steps that change texts or captions."""
    quality: QualitySpec = QualitySpec()
    """Published rules on texts or captions."""
    filters: tuple[FilterSpec, ...] = ()
    """Filters of one's own on texts or captions, applied in order behind those of quality."""
    decontamination: DecontaminationSpec = DecontaminationSpec()
    """Which evaluation sets the documents must not hold; applied before the rules of quality."""
    dropped_text_characters: int = Field(2000, ge=0)
    """Characters of a text that are kept beside the rule which dropped it: what a threshold is judged by. 0: none."""
    exact_dedup: bool = True
    """Keep one of several documents with the same normalised text, or the same values and caption."""
    paragraph_dedup: ParagraphDedupSpec = ParagraphDedupSpec()
    """Keep a paragraph in the first document that has it."""
    fuzzy_dedup: FuzzyDedupSpec = FuzzyDedupSpec()
    """Keep one of several texts that say nearly the same."""
    split: SplitSpec = SplitSpec()
    """Train, validation, test."""
    tokenizer: TokenizerSpec = TokenizerSpec()
    """How texts and captions become tokens."""
    image: ImageSpec = ImageSpec()
    """How images become values."""
    audio: AudioSpec = AudioSpec()
    """How recordings become values."""
    series: SeriesSpec = SeriesSpec()
    """How tables of numbers become values."""
    shard_tokens: int = Field(1_000_000, ge=1024)
    """Tokens of an average shard; none of several documents has more than twice as many. Of images, audio and series
    four bytes of values count as one."""
    unit_bytes: int = placement(1_000_000, ge=1024)
    """Raw bytes that are read as one unit, on average; no unit of several documents has more than twice as many. An
    interruption loses one unit a worker, and a new or changed document has one read anew."""
    work_memory_bytes: int = placement(128_000_000, ge=1024)
    """Memory in which copies are looked for among all documents; what does not fit lies on disk meanwhile, in
    partitions that do. Units have memory of their own, which goes with unit_bytes and the number of workers."""
    quarantine_fraction: float = Field(0.05, ge=0, le=1)
    """Share of unreadable documents above which the stage stops."""
    workers: int | None = placement(None, ge=1)
    """Processes that read and encode; on a Ray cluster tasks in flight. Empty: two; on a Ray cluster two for each CPU,
    one at work and one that waits."""


LOCAL_WORKERS = 2
"""Processes of one machine, where nobody says how many."""
MODALITY_FIELDS = ("image", "audio", "series")
"""Fields of an `IngestSpec` that one modality reads and no other."""

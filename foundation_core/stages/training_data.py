"""What a model is trained and scored on: the rows of an ingest result, of whatever modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer
from torch import Tensor

from foundation_core import plugins
from foundation_core.data.loading.loader import Rows
from foundation_core.data.loading.mixture_entries import Choice
from foundation_core.data.loading.packing import Windows
from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.stores.shelf import StoreShelf
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer, token_bytes
from foundation_core.data.values.features import load_features
from foundation_core.errors import ConfigError
from foundation_core.objectives.base import Objective, Request
from foundation_core.objectives.special import special_tokens
from foundation_core.shape import SampleShape
from foundation_core.specs import PretrainSpec
from foundation_core.specs.loading import Packing
from foundation_core.store import Result


class CaptionsCut(NamedTuple):
    """Captions that are longer than a row has places for.

    Args:
        cut: how many.
        of: how many were looked at.
        tokens: that are kept of each, its end token included.
    """

    cut: int
    of: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.cut:,} of {self.of:,} captions are cut to {self.tokens} tokens, end token included"


@dataclass(frozen=True)
class TrainingData:
    """The rows of each split.

    Args:
        shape: of one row's sample: what a model is built for.
        tokenizer: of its texts or captions; None where there are none.
        packed: whether rows are windows over a text, so that every token of it is read once.
    """

    splits: Mapping[Split, Windows | Samples]
    shape: SampleShape
    tokenizer: Tokenizer | None
    packed: bool
    content: str

    @staticmethod
    def open(
        corpus: Result,
        context_tokens: int,
        packing: Packing = "cut",
        groups: Sequence[Choice] | None = None,
        shelf: StoreShelf | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> TrainingData:
        """Memory-map the shards; each is compared with its sha256 when it is first read.

        Args:
            context_tokens: tokens of a row of text; of a caption at the most, its end token the last of them.
            packing: how the training's rows are made of texts; those of the other splits are always cut, so that
                scores can be compared.
            groups: groups or sources that the training's rows are of, each in rows of its own. None: all documents.
            shelf: a copy of the corpus's folder in a store, which its shards are read from.
            share: (i, n): of n processes of this machine that open it this is the i-th.

        Raises:
            ConfigError: the rows are no texts, and a packing or groups are asked for.
        """
        folder = corpus.folder
        path = folder / TOKENIZER_FILE
        tokenizer = load_tokenizer(path) if path.exists() else None
        kind = "tokens" if (folder / "tokens").is_dir() else "samples"

        def dataset(split: Split) -> ShardDataset:
            return ShardDataset(folder / kind / split, shelf=shelf and shelf / f"{kind}/{split}", share=share)

        if kind == "tokens":
            assert tokenizer is not None, "a text corpus has a tokenizer"

            def rows(split: Split) -> Windows:
                if split == "train":
                    return Windows(dataset(split), context_tokens, packing, groups)
                return Windows(dataset(split), context_tokens)

            shape = SampleShape(vocabulary=tokenizer.get_vocab_size())
            return TrainingData(
                {split: rows(split) for split in SPLITS}, shape, tokenizer, packed=True, content=corpus.content
            )
        if packing != "cut" or groups is not None:
            raise ConfigError(
                "pretrain.packing and pretrain.mixture are about texts, and this corpus has samples",
                fix="remove them from the recipe",
            )
        features = load_features(folder)
        samples = {split: Samples(dataset(split), features, context_tokens) for split in SPLITS}
        return TrainingData(samples, features.shape, tokenizer, packed=False, content=corpus.content)

    @property
    def train(self) -> Windows | Samples:
        """Rows to learn from."""
        return self.splits["train"]

    @property
    def filled_fraction(self) -> float | None:
        """Share of the places of the training's rows that hold a token, the rest is padding; None of samples."""
        return self.train.filled_fraction() if isinstance(self.train, Windows) else None

    def captions_cut(self) -> CaptionsCut | None:
        """How many captions are cut; None where none is, or there are none."""
        captioned = [of for of in self.splits.values() if isinstance(of, Samples) and of.captioned]
        cut, looked_at = (sum(counts) for counts in zip((0, 0), *(of.captions_cut() for of in captioned), strict=True))
        return CaptionsCut(cut, looked_at, captioned[0].caption_tokens) if cut else None

    @property
    def validation(self) -> Rows:
        """Rows to choose by."""
        return self.splits["validation"]

    @property
    def test(self) -> Rows:
        """Rows that are scored once, at the end."""
        return self.splits["test"]

    @property
    def token_bytes(self) -> Tensor | None:
        """(V,) bytes of each token; None without a tokenizer."""
        return None if self.tokenizer is None else token_bytes(self.tokenizer)

    def objective(self, spec: PretrainSpec) -> Objective:
        """The objective of a pretraining on this data.

        Raises:
            ConfigError: there is none of that name, or the data lacks what it needs.
        """
        tokens = None if self.tokenizer is None else special_tokens(self.tokenizer)
        made: Objective = plugins.find("objectives", spec.objective)(
            Request(spec.model, spec.masking, self.shape, tokens)
        )
        return made

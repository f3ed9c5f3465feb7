"""What a model is trained and scored on: the rows of an ingest result, of whatever modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Tokenizer
from torch import Tensor

from foundation_core import plugins
from foundation_core.data.features import load_features
from foundation_core.data.loader import Rows
from foundation_core.data.packing import Windows
from foundation_core.data.samples import Samples
from foundation_core.data.shards import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokenizer import TOKENIZER_FILE, load_tokenizer, token_bytes
from foundation_core.objectives.base import Objective, Request
from foundation_core.objectives.special import special_tokens
from foundation_core.shape import SampleShape
from foundation_core.specs import PretrainSpec
from foundation_core.store import Result


@dataclass(frozen=True)
class TrainingData:
    """The rows of each split.

    Args:
        shape: of one row's sample: what a model is built for.
        tokenizer: of its texts or captions; None where there are none.
        packed: whether rows are windows over a text, so that every token of it is read once.
    """

    splits: Mapping[Split, Rows]
    shape: SampleShape
    tokenizer: Tokenizer | None
    packed: bool
    content: str

    @staticmethod
    def open(corpus: Result, context_tokens: int) -> TrainingData:
        """Memory-map the shards; every one is checked against its sha256.

        Args:
            context_tokens: tokens of a window over text; of a caption, at the most.
        """
        folder = corpus.folder
        path = folder / TOKENIZER_FILE
        tokenizer = load_tokenizer(path) if path.exists() else None
        if (folder / "tokens").is_dir():
            assert tokenizer is not None, "a text corpus has a tokenizer"
            windows = {split: Windows(ShardDataset(folder / "tokens" / split), context_tokens) for split in SPLITS}
            shape = SampleShape(vocabulary=tokenizer.get_vocab_size())
            return TrainingData(windows, shape, tokenizer, packed=True, content=corpus.content)
        features = load_features(folder)
        samples = {
            split: Samples(ShardDataset(folder / "samples" / split), features, context_tokens) for split in SPLITS
        }
        return TrainingData(samples, features.shape, tokenizer, packed=False, content=corpus.content)

    @property
    def train(self) -> Rows:
        """Rows to learn from."""
        return self.splits["train"]

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

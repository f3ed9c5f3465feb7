"""The task that every text has: to be continued.

    document --cut--> fragment_tokens that are read, answer_tokens that are written --> bits per byte, chrF

It needs no labels, so a folder of texts that nobody sorted can be taken from its files to a registered model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from foundation_core.adapt.fragments import cut, documents_by_group, spread_over, token_datasets
from foundation_core.adapt.grams import ByteGrams
from foundation_core.adapt.scores import BITS_PER_BYTE, CHRF, Score
from foundation_core.adapt.tasks import Facts, Tally, TaskData, TaskRows, corpus_tokenizer
from foundation_core.adapt.write import ContinuingTask
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import token_bytes
from foundation_core.errors import ConfigError
from foundation_core.model.layout import sequential
from foundation_core.objectives.base import IGNORE, Example, Objective
from foundation_core.objectives.language import NextToken
from foundation_core.specs import FinetuneSpec


class Continuation(NextToken):
    """Predict each token behind a fragment from all those before it."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The tokens, moved by one, as input and label; nothing of the fragment is a label.

        Args:
            batch: tokens (N, T + 1), prefix (N,) how many of them each row's fragment has.
        """
        tokens, prefix_B1 = batch["tokens"], batch["prefix"][:, None]
        inputs_BT = tokens[:, :-1]
        is_label = torch.arange(1, tokens.shape[1], device=tokens.device) >= prefix_B1
        labels_BT = torch.where(is_label, tokens[:, 1:], IGNORE)
        return Example({"inputs": inputs_BT, "layout": sequential(inputs_BT)}, labels_BT, is_label.sum())


class ContinueText(ContinuingTask):
    """From a fragment of a document, write what follows it."""

    scored: ClassVar[Mapping[str, Score]] = {"bits_per_byte": BITS_PER_BYTE, "chrf": CHRF}
    reads_prefix_whole = False
    baseline = ByteGrams()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """As many places as the spec says, or all that there are, from one document after the other; none overlap."""
        facts, datasets = Facts(spec, [], corpus_tokenizer(corpus)), token_datasets(corpus, spec)
        return TaskData(facts, **{split: self._rows(datasets[split], split, facts, seed) for split in SPLITS})

    def _rows(self, dataset: ShardDataset, split: Split, facts: Facts, seed: int) -> TaskRows:
        spec = facts.spec
        whole = spec.fragment_tokens + spec.answer_tokens
        documents = [document for group in documents_by_group({split: dataset}, whole).values() for document in group]
        places = spread_over(documents, spec.all_labels if split == "train" else spec.evaluation_labels, seed)
        if not places:
            raise ConfigError(
                f"no document of the {split} split has {whole} tokens",
                allowed=f"at least {whole}: finetune.fragment_tokens={spec.fragment_tokens} and"
                f" answer_tokens={spec.answer_tokens}",
                fix="lower these, or add longer documents",
            )
        tokens = torch.stack([cut(dataset, document, place, whole) for document, place in places])
        return TaskRows(
            {"tokens": tokens, "prefix": torch.full((len(tokens),), spec.fragment_tokens)},
            documents=[document.name for document, _ in places],
            prompts=facts.text.decode_batch(tokens[:, : spec.fragment_tokens].tolist()),
            references=facts.text.decode_batch(tokens[:, spec.fragment_tokens :].tolist()),
        )

    def asked(self, facts: Facts) -> Objective:
        """The tokens behind the fragment."""
        return Continuation()

    def answer(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Tally:
        """As of any task that writes; the bytes are those of the tokens, which may begin within a letter."""
        written = rows.tensors["tokens"][:, facts.spec.fragment_tokens :]
        tally: dict[str, Any] = {**super().answer(model, rows, facts)}
        return {**tally, "bytes": int(token_bytes(facts.text)[written].sum())}

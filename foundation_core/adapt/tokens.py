"""Token classification: for each token of a fragment of source, the type that Python's own tokenizer gives it."""

from __future__ import annotations

import io
import json
import token as python_tokens
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from foundation_core.adapt.baselines import UsualClass
from foundation_core.adapt.classify import ClassificationTask
from foundation_core.adapt.fragments import (
    Source,
    cut,
    document_tokens,
    documents_by_group,
    spread_over,
    token_datasets,
)
from foundation_core.adapt.tasks import Facts, Reply, TaskData, TaskRows, corpus_tokenizer
from foundation_core.adapt.transfer import Pretrained, tagging_model
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import token_bytes
from foundation_core.errors import ConfigError
from foundation_core.objectives.base import IGNORE
from foundation_core.specs import FinetuneSpec

BLANK = "(blank)"
"""White space that is of no token of Python."""
TYPES = (BLANK, "COMMENT", "INDENT", "NAME", "NEWLINE", "NL", "NUMBER", "OP", "STRING")
_OF_STRINGS = ("FSTRING", "TSTRING")  # newer versions of Python take such strings apart


class TokenTypes(ClassificationTask):
    """From a fragment of source, name the type of each token: that of the Python token which holds its first byte that
    is of any; a token of the vocabulary usually begins with the blank before a word."""

    reads = "text"
    ability = "tag"
    columns: ClassVar[Mapping[str, str]] = {"tags": "string"}
    baseline = UsualClass()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Fragments spread over all documents that Python's tokenizer reads, chosen by a keyed hash."""
        datasets, tokenizer = token_datasets(corpus, spec), corpus_tokenizer(corpus)
        assert tokenizer is not None, "a text corpus has a tokenizer"
        every = [each for group in documents_by_group(datasets, spec.fragment_tokens).values() for each in group]
        rows = {split: _rows(datasets[split], split, every, tokenizer, spec, seed) for split in SPLITS}
        seen = sorted(set(rows["train"].labels.flatten().tolist()) - {IGNORE})
        classes = [name for number, name in enumerate(TYPES) if number in seen]
        known = torch.full((len(TYPES),), IGNORE)
        known[seen] = torch.arange(len(classes))
        named = {split: _renamed(of, known) for split, of in rows.items()}
        return TaskData(Facts(spec, classes, tokenizer), **named)

    def model(self, trunk: Pretrained, facts: Facts, seed: int) -> nn.Module:
        """Stem and trunk of the family, and a head on each token."""
        return tagging_model(trunk.spec, trunk.shape, len(facts.classes), seed)

    def reply(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Reply:
        """Each token with its type, as JSON."""
        ids, length, tags = facts.text.encode(item).ids, facts.spec.fragment_tokens, list[str]()
        for start in range(0, len(ids), length):
            best = model(torch.tensor([ids[start : start + length]])).argmax(-1)[0]
            tags += [facts.classes[number] for number in best.tolist()]
        words = [facts.text.decode([number]) for number in ids]
        return {"tags": json.dumps([list(pair) for pair in zip(words, tags, strict=True)], ensure_ascii=False)}


def types_of_bytes(text: str) -> list[int] | None:
    """The number in `TYPES` of the Python token that holds each byte of a text; None if Python cannot read it."""
    lines = [line.encode() for line in text.split("\n")]
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line) + 1)
    kinds = [0] * len(text.encode())
    texts = text.split("\n")

    def place(row: int, column: int) -> int:
        if row > len(texts):
            return begins[-1]
        line_end = max(0, column - len(texts[row - 1]))
        return begins[row - 1] + len(texts[row - 1][:column].encode()) + line_end

    try:
        for found in tokenize.generate_tokens(io.StringIO(text).readline):
            name = python_tokens.tok_name[found.type]
            name = "STRING" if name.startswith(_OF_STRINGS) else name
            if name in TYPES:
                start, end = place(*found.start), min(place(*found.end), len(kinds))
                kinds[start:end] = [TYPES.index(name)] * (end - start)
    except (tokenize.TokenError, SyntaxError, IndexError):
        return None
    return kinds


def types_of_tokens(ids: Tensor, tokenizer: Tokenizer, bytes_of_token: Tensor) -> Tensor | None:
    """The number in `TYPES` for each token of a document, IGNORE for special ones; None if Python cannot read it."""
    kinds = types_of_bytes(tokenizer.decode(ids.tolist()))
    lengths = bytes_of_token[ids].tolist()
    if kinds is None or sum(lengths) != len(kinds):
        return None
    labels, begin = [], 0
    for length in lengths:
        mine = kinds[begin : begin + length]
        labels.append(next((kind for kind in mine if kind), 0) if length else IGNORE)
        begin += length
    return torch.tensor(labels)


def _rows(
    dataset: ShardDataset, split: Split, every: list[Source], tokenizer: Tokenizer, spec: FinetuneSpec, seed: int
) -> TaskRows:
    wanted = spec.all_labels if split == "train" else spec.evaluation_labels
    sources = [source for source in every if source.split == split]
    found = list(_labelled(dataset, sources, tokenizer, spec, seed, wanted))
    if len(found) < wanted:
        raise ConfigError(
            f"the {split} split holds {len(found)} fragments of {spec.fragment_tokens} tokens that Python can read",
            allowed=f"{wanted} or more",
            fix="lower finetune.all_labels, evaluation_labels or fragment_tokens, or add documents",
        )
    tokens, labels, documents = zip(*found, strict=True)
    return TaskRows({"inputs": torch.stack(tokens), "labels": torch.stack(labels)}, list(documents))


def _labelled(
    dataset: ShardDataset, sources: list[Source], tokenizer: Tokenizer, spec: FinetuneSpec, seed: int, wanted: int
) -> Iterator[tuple[Tensor, Tensor, str]]:
    lengths, length, types = token_bytes(tokenizer), spec.fragment_tokens, dict[str, Tensor | None]()
    for source, place in spread_over(sources, sum(source.places for source in sources), seed):
        if source.name not in types:
            types[source.name] = types_of_tokens(document_tokens(dataset, source), tokenizer, lengths)
        of_document = types[source.name]
        if of_document is not None:
            labels = of_document[place * length : (place + 1) * length]
            yield cut(dataset, source, place, length), labels, source.name
            wanted -= 1
        if not wanted:
            return


def _renamed(rows: TaskRows, known: Tensor) -> TaskRows:
    labels = rows.labels
    renamed = torch.where(labels == IGNORE, IGNORE, known[labels.clamp(min=0)])
    return TaskRows({**rows.tensors, "labels": renamed}, rows.documents)

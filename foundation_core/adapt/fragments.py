"""Tasks on fragments of text: pieces of the corpus's documents, all of one length, that do not overlap."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from foundation_core.adapt.baselines import LettersInARow
from foundation_core.adapt.classify import RowTask
from foundation_core.adapt.tasks import Facts, TaskData, TaskRows, balanced, corpus_tokenizer
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import END_ID
from foundation_core.errors import ConfigError
from foundation_core.specs import FinetuneSpec


@dataclass(frozen=True)
class Source:
    """What a document can give: so many whole fragments."""

    name: str
    split: Split
    shard: int
    row: int
    places: int


class PackageOfFragment(RowTask):
    """From a fragment of source, name the top-level package that it comes from."""

    reads = "text"
    baseline = LettersInARow()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Balanced fragments of the packages with the most files.

        Fragments do not overlap. They are spread over a package's documents, one from each in turn; which documents and
        which places in them come first is decided by a keyed hash.
        """
        datasets = token_datasets(corpus, spec)
        groups = documents_by_group(datasets, spec.fragment_tokens)
        classes = choose_classes(groups, spec)
        chosen = {name: groups[name] for name in classes}
        rows = {split: _fragments(datasets[split], split, chosen, spec, seed) for split in SPLITS}
        return TaskData(Facts(spec, classes, corpus_tokenizer(corpus)), **rows)

    def few(self, data: TaskData, seed: int) -> Tensor:
        """As many rows of each class."""
        return balanced(data.train.labels, data.facts.spec.few_labels, len(data.classes), seed)

    def probabilities(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Tensor:
        """The mean over the text's fragments; a last one that is not whole counts only if there is no other."""
        length = facts.spec.fragment_tokens
        fragments = torch.split(torch.tensor(facts.text.encode(item).ids or [END_ID]), length)
        whole = [fragment for fragment in fragments if len(fragment) == length]
        logits: Tensor = model(torch.stack(whole or [fragments[0]]))
        return logits.softmax(dim=-1).mean(dim=0)


def token_datasets(corpus: Path, spec: FinetuneSpec) -> dict[Split, ShardDataset]:
    """The tokens of a corpus of text, by split.

    Raises:
        ConfigError: the corpus has no texts.
    """
    if not (corpus / "tokens").is_dir():
        raise ConfigError(
            f"the task {spec.task} cuts fragments of text, and the corpus has none",
            fix="choose a task on values, such as class_of_sample, or ingest a source of texts",
        )
    return {split: ShardDataset(corpus / "tokens" / split) for split in SPLITS}


def choose_classes(groups: Mapping[str, list[Source]], spec: FinetuneSpec) -> list[str]:
    """The packages that become classes, sorted by name: those with most training files among those with enough.

    Packages with two files or more in both validation and test come first: one file is a narrow picture of a package.

    Raises:
        ConfigError: there are too few, with what each package has.
    """
    able = [name for name, documents in groups.items() if name and _is_enough(documents, spec)]
    able.sort(key=lambda name: (-min(2, *_files(groups[name])[1:]), -_files(groups[name])[0], name))
    if len(able) < spec.least_classes:
        raise _too_few_classes(groups, len(able), spec)
    return sorted(able[: spec.classes])


def documents_by_group(datasets: Mapping[Split, ShardDataset], fragment_tokens: int) -> dict[str, list[Source]]:
    """Every document that can give a fragment, by its package."""
    groups: dict[str, list[Source]] = defaultdict(list)
    for split, dataset in datasets.items():
        for shard, table in enumerate(dataset.tables()):
            lengths = _offsets(table).diff().tolist()
            names, packages = table["document"].to_pylist(), table["group"].to_pylist()
            for row, (name, package, length) in enumerate(zip(names, packages, lengths, strict=True)):
                if places := length // fragment_tokens:
                    groups[package].append(Source(name, split, shard, row, places))
    return groups


def _files(documents: Iterable[Source]) -> tuple[int, int, int]:
    """Documents in train, validation and test."""
    of = Counter(document.split for document in documents)
    return of["train"], of["validation"], of["test"]


def _places(documents: Iterable[Source]) -> dict[Split, int]:
    """Fragments that the documents hold, by split."""
    of: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for document in documents:
        of[document.split] += document.places
    return of


def _is_enough(documents: list[Source], spec: FinetuneSpec) -> bool:
    return _files(documents)[0] >= spec.least_files and all(
        held >= _wanted(split, spec) for split, held in _places(documents).items()
    )


def _wanted(split: Split, spec: FinetuneSpec) -> int:
    """Fragments a class in a split."""
    return spec.all_labels if split == "train" else spec.evaluation_labels


def _fragments(
    dataset: ShardDataset, split: Split, chosen: Mapping[str, list[Source]], spec: FinetuneSpec, seed: int
) -> TaskRows:
    """The same number of fragments of each chosen package, from one split."""
    sides = [[document for document in documents if document.split == split] for documents in chosen.values()]
    count = _wanted(split, spec)
    places = [place for side in sides for place in spread_over(side, count, seed)]
    cuts = [cut(dataset, document, place, spec.fragment_tokens) for document, place in places]
    return TaskRows(
        {"inputs": torch.stack(cuts), "labels": torch.arange(len(sides)).repeat_interleave(count)},
        documents=[document.name for document, _ in places],
    )


def spread_over(documents: Iterable[Source], count: int, seed: int) -> list[tuple[Source, int]]:
    """So many places, one from each document in turn; documents and places in the order of a keyed hash."""
    turns = [
        (turn, _key(seed, document.name), document, place)
        for document in documents
        for turn, place in enumerate(_shuffled_places(document, seed))
    ]
    turns.sort(key=lambda entry: entry[:2])
    return [(document, place) for _, _, document, place in turns[:count]]


def _shuffled_places(document: Source, seed: int) -> list[int]:
    return sorted(range(document.places), key=lambda place: _key(seed, document.name, place))


def _key(*parts: object) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()


def document_tokens(dataset: ShardDataset, document: Source) -> Tensor:
    """All tokens of a document, the end token included."""
    table = dataset.table(document.shard)
    start, end = _offsets(table)[document.row : document.row + 2].tolist()
    tokens: Tensor = from_dlpack(_token_column(table).values)[start:end].long()
    return tokens


def cut(dataset: ShardDataset, document: Source, place: int, fragment_tokens: int) -> Tensor:
    table = dataset.table(document.shard)
    start = _offsets(table)[document.row] + place * fragment_tokens
    return from_dlpack(_token_column(table).values)[start : start + fragment_tokens].long()


def _offsets(table: Any) -> Tensor:
    return from_dlpack(_token_column(table).offsets)


def _token_column(table: Any) -> Any:
    return table["tokens"].chunk(0)  # a shard is one record batch


def _too_few_classes(groups: Mapping[str, list[Source]], able: int, spec: FinetuneSpec) -> ConfigError:
    needs = (
        f"{spec.least_files} training files, {spec.all_labels} fragments of {spec.fragment_tokens} tokens in them, and"
        f" {spec.evaluation_labels} fragments each in validation and test"
    )
    largest = sorted(groups, key=lambda name: (-_files(groups[name])[0], name))[:12]
    counts = [f"{name or '(no package)'} {_described(groups[name])}" for name in largest]
    return ConfigError(
        f"{able} packages can be classes of the task. A class needs {needs}."
        f" Largest packages, as training files, fragments in train/validation/test: {'; '.join(counts) or 'none'}",
        allowed=f"{spec.least_classes} classes or more",
        fix="lower finetune.least_classes, all_labels, evaluation_labels or fragment_tokens, or add documents",
    )


def _described(documents: list[Source]) -> str:
    return f"{_files(documents)[0]} files, {'/'.join(str(held) for held in _places(documents).values())}"

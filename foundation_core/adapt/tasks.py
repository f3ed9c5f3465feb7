"""Tasks: labelled data made from a corpus, on the corpus's own split, so that no file is on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.order import Order
from foundation_core.data.shards import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.errors import ConfigError
from foundation_core.files import read_json, write_json
from foundation_core.specs import FinetuneSpec
from foundation_core.weights import load_weights, save_weights

TASK_FILE = "task.json"
FRAGMENTS_FILE = "fragments.safetensors"
TASK_VERSION = 1


@dataclass(frozen=True)
class Fragments:
    """Labelled rows of one split, class after class, the same number of each.

    Args:
        tokens: (N, F).
        labels: (N,) index of the class.
        documents: id of the document that each row comes from.
    """

    tokens: Tensor
    labels: Tensor
    documents: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> Fragments:
        """Some of the rows."""
        return Fragments(self.tokens[rows], self.labels[rows], [self.documents[row] for row in rows.tolist()])


@dataclass(frozen=True)
class TaskData:
    """A classification task.

    Args:
        classes: their names; a label is an index into them.
    """

    classes: list[str]
    train: Fragments
    validation: Fragments
    test: Fragments

    def split(self, name: Split) -> Fragments:
        """The rows of a split."""
        rows: Fragments = getattr(self, name)
        return rows


class Task(Protocol):
    """Makes labelled data from a corpus."""

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """The task: a pure function of the corpus, the spec and the seed.

        Args:
            corpus: folder of an ingest result.

        Raises:
            ConfigError: the corpus cannot fill it, with the counts.
        """


@dataclass(frozen=True)
class _Document:
    """What a document can give: so many whole fragments."""

    name: str
    split: Split
    shard: int
    row: int
    places: int


class PackageOfFragment:
    """From a fragment of source, name the top-level package that it comes from."""

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Balanced fragments of the packages with the most files.

        Fragments do not overlap. They are spread over a package's documents, one from each in turn; which documents and
        which places in them come first is decided by a keyed hash.
        """
        datasets = {split: ShardDataset(corpus / "tokens" / split) for split in SPLITS}
        groups = _documents_by_group(datasets, spec.fragment_tokens)
        classes = choose_classes(groups, spec)
        chosen = {name: groups[name] for name in classes}
        rows = {split: _fragments(datasets[split], split, chosen, spec, seed) for split in SPLITS}
        return TaskData(classes, **rows)


def choose_classes(groups: Mapping[str, list[_Document]], spec: FinetuneSpec) -> list[str]:
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


def few_of(fragments: Fragments, per_class: int, classes: int, seed: int) -> Tensor:
    """Indices of so many rows of each class, chosen by the seed, the same number of each class."""
    all_of_class = len(fragments) // classes
    rows = Order(all_of_class, seed).take(0, per_class)
    return torch.cat([number * all_of_class + rows for number in range(classes)])


def save_task(folder: Path, data: TaskData) -> None:
    """Write a task; `task.json` comes last and makes it one."""
    rows = {split: data.split(split) for split in SPLITS}
    tensors = {f"{split}.{part}": getattr(rows[split], part) for split in SPLITS for part in ("tokens", "labels")}
    digest = save_weights(folder / FRAGMENTS_FILE, tensors)
    write_json(
        folder / TASK_FILE,
        {
            "version": TASK_VERSION,
            "classes": data.classes,
            "fragments": digest,
            "documents": {split: rows[split].documents for split in SPLITS},
        },
    )


def load_task(folder: Path) -> TaskData:
    """The task that `save_task` wrote.

    Raises:
        DataError: there is none.
        CheckpointError: the fragments were edited.
    """
    body = read_json(folder / TASK_FILE)
    tensors = load_weights(folder / FRAGMENTS_FILE, body["fragments"])
    rows = {
        split: Fragments(tensors[f"{split}.tokens"], tensors[f"{split}.labels"], body["documents"][split])
        for split in SPLITS
    }
    return TaskData(body["classes"], **rows)


def _documents_by_group(datasets: Mapping[Split, ShardDataset], fragment_tokens: int) -> dict[str, list[_Document]]:
    """Every document that can give a fragment, by its package."""
    groups: dict[str, list[_Document]] = defaultdict(list)
    for split, dataset in datasets.items():
        for shard, table in enumerate(dataset.tables()):
            lengths = _offsets(table).diff().tolist()
            names, packages = table["document"].to_pylist(), table["group"].to_pylist()
            for row, (name, package, length) in enumerate(zip(names, packages, lengths, strict=True)):
                if places := length // fragment_tokens:
                    groups[package].append(_Document(name, split, shard, row, places))
    return groups


def _files(documents: Iterable[_Document]) -> tuple[int, int, int]:
    """Documents in train, validation and test."""
    of = Counter(document.split for document in documents)
    return of["train"], of["validation"], of["test"]


def _places(documents: Iterable[_Document]) -> dict[Split, int]:
    """Fragments that the documents hold, by split."""
    of: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for document in documents:
        of[document.split] += document.places
    return of


def _is_enough(documents: list[_Document], spec: FinetuneSpec) -> bool:
    return _files(documents)[0] >= spec.least_files and all(
        held >= _wanted(split, spec) for split, held in _places(documents).items()
    )


def _wanted(split: Split, spec: FinetuneSpec) -> int:
    """Fragments a class in a split."""
    return spec.all_labels if split == "train" else spec.evaluation_labels


def _fragments(
    dataset: ShardDataset, split: Split, chosen: Mapping[str, list[_Document]], spec: FinetuneSpec, seed: int
) -> Fragments:
    """The same number of fragments of each chosen package, from one split."""
    sides = [[document for document in documents if document.split == split] for documents in chosen.values()]
    count = _wanted(split, spec)
    places = [place for side in sides for place in _spread(side, count, seed)]
    return Fragments(
        tokens=torch.stack([_cut(dataset, document, place, spec.fragment_tokens) for document, place in places]),
        labels=torch.arange(len(sides)).repeat_interleave(count),
        documents=[document.name for document, _ in places],
    )


def _spread(documents: Iterable[_Document], count: int, seed: int) -> list[tuple[_Document, int]]:
    """So many places, one from each document in turn; documents and places in the order of a keyed hash."""
    turns = [
        (turn, _key(seed, document.name), document, place)
        for document in documents
        for turn, place in enumerate(_shuffled_places(document, seed))
    ]
    turns.sort(key=lambda entry: entry[:2])
    return [(document, place) for _, _, document, place in turns[:count]]


def _shuffled_places(document: _Document, seed: int) -> list[int]:
    return sorted(range(document.places), key=lambda place: _key(seed, document.name, place))


def _key(*parts: object) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()


def _cut(dataset: ShardDataset, document: _Document, place: int, fragment_tokens: int) -> Tensor:
    table = dataset.table(document.shard)
    start = _offsets(table)[document.row] + place * fragment_tokens
    return from_dlpack(_token_column(table).values)[start : start + fragment_tokens].long()


def _offsets(table: Any) -> Tensor:
    return from_dlpack(_token_column(table).offsets)


def _token_column(table: Any) -> Any:
    return table["tokens"].chunk(0)  # a shard is one record batch


def _too_few_classes(groups: Mapping[str, list[_Document]], able: int, spec: FinetuneSpec) -> ConfigError:
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


def _described(documents: list[_Document]) -> str:
    return f"{_files(documents)[0]} files, {'/'.join(str(held) for held in _places(documents).values())}"

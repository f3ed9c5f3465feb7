"""A first recipe for somebody's own texts: look at them, choose sizes that fit, and say why in the recipe.

source --survey--> what there is --choose--> sizes --write--> recipe.yaml
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foundation_core.data.sources.documents import SourceFile, open_source
from foundation_core.data.sources.modalities import Reader, open_reader, read_files
from foundation_core.data.split import SPLITS, Split, split_of
from foundation_core.data.tokens.byte_level import encode_document, train_tokenizer
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec, SourceSpec, SplitSpec

READ_BYTES = 64_000_000
"""Of a larger source a part is read, spread over it."""
TOKENIZER_BYTES = 4_000_000
VOCABULARIES = ((3_000_000, 4096), (1_000_000, 2048), (300_000, 1024), (0, 512), (0, 384), (0, 300), (0, 264))
"""Bytes of training text from which on a vocabulary is tried, the largest first."""
TRUNKS = ((8_000_000, 256, 4, 4), (1_500_000, 192, 3, 3), (300_000, 128, 2, 2), (0, 64, 2, 2))
"""Training tokens from which on a trunk is taken: width, depth, heads."""
CONTEXTS = ((200_000, 128), (10_000, 64), (0, 16))
LABELS = ((240, 60, 24), (120, 30, 12), (60, 20, 8), (24, 8, 4), (8, 4, 2))
"""Fragments a class: all, few, and for validation and test each."""
FRAGMENTS = (64, 32, 16, 8)
SPLITTINGS = (SplitSpec(), SplitSpec(validation_fraction=0.2, test_fraction=0.2))
BATCH_ROWS, MOST_STEPS, LEAST_STEPS, PASSES, MOST_CLASSES, LEAST_FILES = 8, 600, 20, 4, 12, 3
MARGIN = 0.7
"""Of the fragments that a document would give by its size; tokens are estimated from bytes."""


@dataclass(frozen=True)
class Survey:
    """What a source holds.

    Args:
        documents: that are readable and no copies.
        text_bytes: of them.
        groups: the bytes of each document, by group and split.
    """

    source: SourceSpec
    split: SplitSpec
    documents: int
    text_bytes: int
    vocabulary: int
    bytes_per_token: float
    groups: Mapping[str, Mapping[Split, Sequence[int]]]

    def tokens(self, split: Split) -> int:
        """Tokens of a split, about."""
        return int(sum(sum(sides[split]) for sides in self.groups.values()) / self.bytes_per_token)


@dataclass(frozen=True)
class Task:
    """What the labels can give: the groups that become classes, and fragments of each."""

    classes: int
    fragment_tokens: int
    all_labels: int
    few_labels: int
    evaluation_labels: int


def survey(source: SourceSpec) -> Survey:
    """Look at a source: read it, leave copies out, try a vocabulary.

    Raises:
        ConfigError, DataError: what ingest would refuse: nothing there, too much that is no text, too few documents.
    """
    opened = open_source(source)
    files = opened.files()
    if not files:
        raise DataError("the source is empty: no file matches", fix="check the path and the pattern")
    step = 1 + sum(file.bytes for file in files) // READ_BYTES
    with TemporaryDirectory() as copies:
        parts = [part for file in files for part in file.parts(READ_BYTES // 64, Path(copies))]
        documents, unreadable, looked_at = _distinct(parts[::step], open_reader(opened, IngestSpec(source=source)))
    allowed = IngestSpec().quarantine_fraction
    if len(unreadable) > allowed * looked_at:
        first = "; ".join(f"{entry['document']}: {entry['reason']}" for entry in unreadable[:3])
        raise DataError(
            f"{len(unreadable)} of {looked_at} documents cannot be read: {first}",
            allowed=f"at most {allowed:.0%}",
            fix="narrow the pattern to the files that are text",
        )
    split, sides = _splitting([document["document"] for document in documents])
    groups: dict[str, dict[Split, list[int]]] = defaultdict(lambda: {name: [] for name in SPLITS})
    for document, side in zip(documents, sides, strict=True):
        groups[document["group"]][side].extend([document["bytes"]] * step)
    texts = [document["text"] for document, side in zip(documents, sides, strict=True) if side == "train"]
    train_bytes = sum(sum(of["train"]) for of in groups.values())
    vocabulary, bytes_per_token = _tokenized(texts, train_bytes)
    text_bytes = step * sum(document["bytes"] for document in documents)
    return Survey(source, split, step * len(documents), text_bytes, vocabulary, bytes_per_token, groups)


def choose_task(found: Survey, context_tokens: int) -> Task | None:
    """The longest fragments and the most classes that the groups can give; None if fewer than two can be classes."""
    for fragment_tokens in (size for size in FRAGMENTS if size <= context_tokens):
        tasks = [Task(_able(found, fragment_tokens, *labels), fragment_tokens, *labels) for labels in LABELS]
        best = max(tasks, key=lambda task: (min(task.classes, MOST_CLASSES), task.all_labels))
        if best.classes >= 2:
            return best
    return None


def can_be_continued(found: Survey, tokens: int) -> bool:
    """Whether a document of each split has so many tokens, by its size."""
    longest = {split: max((max(of[split], default=0) for of in found.groups.values()), default=0) for split in SPLITS}
    return all(MARGIN * size / found.bytes_per_token >= tokens for size in longest.values())


def recipe_text(found: Survey, name: str, workers: int, *, labelled: bool) -> str:
    """The recipe, as YAML with comments."""
    train = found.tokens("train")
    smallest = min(found.tokens(split) for split in SPLITS)
    context = _from(train, CONTEXTS)[0]
    while context > 8 and context >= smallest:
        context //= 2
    width, depth, heads = _from(train, TRUNKS)
    steps = min(MOST_STEPS, max(LEAST_STEPS, PASSES * train // (BATCH_ROWS * context)))
    task = choose_task(found, context) if labelled else None
    continued = task is None and can_be_continued(found, context // 2 + context // 4)
    source = found.source.model_dump(mode="json", exclude_defaults=True)
    split = f"{{ validation_fraction: {found.split.validation_fraction}, test_fraction: {found.split.test_fraction} }}"
    passes = steps * BATCH_ROWS * context / max(train, 1)
    return "\n".join(
        [
            f"# {found.documents:,} documents, {found.text_bytes / 1e6:.2f} MB of text, {len(found.groups)} groups.",
            "# Any field can be set on the command line: --pretrain.steps 400. `foundation fields` lists them all.",
            f"name: {name}",
            *_last(task, labelled=labelled, continued=continued),
            "",
            "ingest:",
            f"  source: {_flow(source)}",
            "  # Shares of the documents, by a hash of their ids: validation chooses, test is scored once.",
            f"  split: {split}",
            "  # A larger vocabulary makes fewer tokens, each seen less often; this one gives"
            f" {found.bytes_per_token:.1f} bytes a token.",
            f"  tokenizer: {{ vocabulary: {found.vocabulary} }}",
            f"  unit_bytes: {max(1_000_000, found.text_bytes // 16)}  # read at a time",
            "",
            "pretrain:",
            f"  # About {train:,} tokens to train on. More would carry a larger trunk; with less it learns by heart.",
            "  model:",
            f"    context_tokens: {context}  # tokens read at once; a split must hold more than one such row",
            f"    trunk: {{ width: {width}, depth: {depth}, heads: {heads} }}",
            f"  # {BATCH_ROWS} rows of {context} tokens a step: {passes:.1f} passes over the text. About {PASSES}",
            "  # teach nearly as much as new text (Muennighoff et al. 2023);"
            f" {MOST_STEPS} steps at the most, to save your time.",
            f"  steps: {steps}",
            f"  batch_rows: {BATCH_ROWS}",
            "  optimizer: { lr: 3.0e-3, embedding_lr_factor: 10 }  # small models stand a large rate",
            f"  validate_every_steps: {max(1, steps // 4)}",
            f"  checkpoint_every_steps: {max(1, steps // 4)}",
            f"  workers: {workers}  # processes",
            "",
            *_finetune(task, context, continued=continued),
            "",
            f"evaluate: {{ sample_tokens: {context // 2} }}  # must be less than the context",
            "",
            f"publish: {{ model_name: {name} }}",
            "",
        ]
    )


def _last(task: Task | None, *, labelled: bool, continued: bool) -> list[str]:
    if task is not None:
        return []
    why = "Fewer than 2 groups have enough text to be classes" if labelled else "The documents have no labels"
    if continued:
        return [f"# {why}: the task is to go on with a text."]
    return [f"# {why}, and some split only short texts: the run ends with the trunk.", "last: pretrain"]


def _finetune(task: Task | None, context: int, *, continued: bool) -> list[str]:
    if continued:
        return [
            "finetune:",
            "  task: continue_text  # needs no labels",
            f"  fragment_tokens: {context // 2}  # read",
            f"  answer_tokens: {context // 4}  # written; a document that has not both gives none",
            "  all_labels: 4000  # places in the training texts, at the most",
            "  evaluation_labels: 60",
            "  lr: [0.2e-3, 2.8e-3]  # the pretrained model needs little, a fresh one much",
            "  seeds: [0, 1, 2]",
        ]
    if task is None:
        return [f"finetune: {{ fragment_tokens: {min(64, context)} }}  # not run; must not exceed the context"]
    classes = min(task.classes, MOST_CLASSES)
    return [
        "finetune:",
        f"  # {task.classes} groups have enough: {LEAST_FILES} training documents, and the fragments below.",
        f"  classes: {classes}",
        f"  fragment_tokens: {task.fragment_tokens}  # a shorter document gives none",
        f"  few_labels: {task.few_labels}",
        f"  all_labels: {task.all_labels}",
        f"  evaluation_labels: {task.evaluation_labels}",
        f"  batch_rows: {min(12, 2 * task.few_labels)}",
        "  seeds: [0, 1, 2]",
    ]


def _distinct(files: Sequence[SourceFile], reader: Reader) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """The readable documents, each text once, those that are not readable, and how many both were."""
    documents, unreadable = read_files(files, reader)
    by_text: dict[str, dict[str, Any]] = {}
    for document in documents.to_pylist():
        by_text.setdefault(document["sha256"], document)
    return list(by_text.values()), unreadable.to_pylist(), len(documents) + len(unreadable)


def _splitting(names: Sequence[str]) -> tuple[SplitSpec, list[Split]]:
    for split in SPLITTINGS:
        sides = [split_of(name, split) for name in names]
        if set(sides) == set(SPLITS):
            return split, sides
    raise DataError(f"{len(names)} documents are too few to split into {', '.join(SPLITS)}", fix="add documents")


def _tokenized(texts: Sequence[str], train_bytes: int) -> tuple[int, float]:
    """The largest vocabulary that fits the size and that the texts fill, and the bytes of its tokens."""
    sample, size = [], 0
    for text in texts:
        sample.append(text)
        size += len(text.encode())
        if size > TOKENIZER_BYTES:
            break
    for least, vocabulary in VOCABULARIES:
        if train_bytes >= least:
            try:
                tokenizer = train_tokenizer(sample, vocabulary)
            except ConfigError:
                continue
            return vocabulary, size / sum(len(encode_document(tokenizer, text)) for text in sample)
    raise DataError(f"{train_bytes} bytes of training text are too few for any vocabulary", fix="add documents")


def _able(found: Survey, fragment_tokens: int, all_labels: int, few_labels: int, evaluation_labels: int) -> int:
    """Groups that can be classes."""
    wanted = {"train": all_labels, "validation": evaluation_labels, "test": evaluation_labels}

    def fragments(sizes: Sequence[int]) -> int:
        return sum(int(MARGIN * size / found.bytes_per_token / fragment_tokens) for size in sizes)

    return sum(
        bool(group) and len(sides["train"]) >= LEAST_FILES and all(fragments(sides[s]) >= wanted[s] for s in SPLITS)
        for group, sides in found.groups.items()
    )


def _from(amount: int, table: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return next(row[1:] for row in table if amount >= row[0])


def _flow(body: Mapping[str, Any]) -> str:
    """A mapping on one line of YAML, any text in it quoted."""
    import json

    return "{ " + ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in body.items()) + " }"

"""Tasks on values: the class of an image, a recording or a window of a series, and how a series goes on."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from foundation_core.adapt.baselines import LastValue, NearValues, UsualText
from foundation_core.adapt.classify import Classification, RowTask
from foundation_core.adapt.scores import CHRF, CLASS_NAMED, EXACT_MATCH, SQUARED_ERROR, WORD_ERRORS, Score
from foundation_core.adapt.tasks import (
    Facts,
    Reply,
    Tally,
    Task,
    TaskData,
    TaskRows,
    balanced,
    corpus_tokenizer,
    summed_loss,
)
from foundation_core.adapt.transfer import Pretrained, load_whole, whole_model
from foundation_core.adapt.write import WritingTask, begun_beside
from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import start_id
from foundation_core.data.values.features import load_features
from foundation_core.errors import ConfigError
from foundation_core.generation.texts import Begun
from foundation_core.model.layout import Layout
from foundation_core.model.stems import patches_of
from foundation_core.objectives.base import ALONE, Example, Objective, Ranks
from foundation_core.objectives.pairs import Captioning
from foundation_core.specs import FinetuneSpec


class ClassOfSample(RowTask):
    """From an image, a recording or a window of a series, name the group that it belongs to."""

    reads = "values"
    baseline = NearValues()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Every sample of the groups with the most of them; nothing here is random.

        The test is all that the corpus has, so that its scores can be set beside others on the same data.
        """
        samples = open_samples(corpus, spec)
        groups = {split: of.groups() for split, of in samples.items()}
        classes = _classes(groups, spec)
        rows = {split: _labelled(samples[split], groups[split], classes) for split in SPLITS}
        return TaskData(Facts(spec, classes), **rows)

    def few(self, data: TaskData, seed: int) -> Tensor:
        """As many rows of each class."""
        return balanced(data.train.labels, data.facts.spec.few_labels, len(data.classes), seed)

    def objective(self, trunk: Pretrained, facts: Facts) -> Objective:
        """Cross-entropy of samples that are changed a little."""
        return Classification(facts.spec.augment)

    def probabilities(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Tensor:
        """Of one sample."""
        assert isinstance(item, Tensor), "values are read by the corpus's own features"
        logits: Tensor = model(item[None])
        return logits.softmax(dim=-1)[0]


class CaptionOfSample(WritingTask):
    """From an image or a recording, write its caption: what is seen or said."""

    scored: ClassVar[Mapping[str, Score]] = {"word_error_rate": WORD_ERRORS, "exact_match": EXACT_MATCH}
    reads = "values"
    baseline = UsualText()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Every sample of the corpus."""
        facts = Facts(spec, [], corpus_tokenizer(corpus))
        start_id(facts.text)
        samples = open_samples(corpus, spec, spec.answer_tokens)
        rows = {split: TaskRows(_everything(of), of.documents(), [], of.captions()) for split, of in samples.items()}
        return TaskData(facts, **rows)

    def asked(self, facts: Facts) -> Objective:
        """The tokens of the caption."""
        return Captioning(start_id(facts.text))

    def questions(self, items: Sequence[str | Tensor], facts: Facts) -> TaskRows:
        """Samples, as the corpus's own features read them."""
        return TaskRows({"values": torch.stack(cast(list[Tensor], list(items)))}, ["asked"] * len(items))

    def begun(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Begun:
        """Captions beside the samples."""
        return begun_beside(model, rows.tensors["values"], None, facts.text)


class CaptionNamingClass(CaptionOfSample):
    """From an image or a recording that has a class, write a caption that names the class.

    A sample may be described in several ways: an answer is right if training gives it to samples of this class and to
    none of another. That is exact where captions are shared, as those from templates are; where each sample has one of
    its own, `caption_of_sample` asks the better question.
    """

    scored: ClassVar[Mapping[str, Score]] = {"class_named": CLASS_NAMED, "exact_match": EXACT_MATCH, "chrf": CHRF}

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Every sample of the classes, with its caption.

        Raises:
            ConfigError: there are too few classes, or one whose captions are those of others too.
        """
        whole = super().data(corpus, spec, seed)
        groups = {split: of.groups() for split, of in open_samples(corpus, spec).items()}
        classes = _classes(groups, spec)
        rows = {split: _of_classes(whole.split(split), groups[split], classes) for split in SPLITS}
        facts = replace(whole.facts, classes=classes, names=_names(rows["train"]))
        if silent := [name for number, name in enumerate(classes) if number not in facts.names.values()]:
            raise ConfigError(
                f"no caption names the class {silent[0]}: each that its samples have is one of another class too",
                fix="choose caption_of_sample, which compares each answer with the sample's own caption",
            )
        return TaskData(facts, **rows)

    def compared(self, texts: Sequence[str], rows: TaskRows, facts: Facts) -> dict[str, Any]:
        """What the texts have in common with the captions, and how many name the class."""
        named = [facts.names.get(text.strip()) for text in texts]
        right = sum(name == label for name, label in zip(named, rows.labels.tolist(), strict=True))
        return {**super().compared(texts, rows, facts), "named": right}


class NextPatch(Objective):
    """Draw the last patch of a series from those before it, in the units that the model reads.

    Args:
        patch: its height and width.
    """

    unit = "squares"

    def __init__(self, patch: tuple[int, int]) -> None:
        self.patch = patch

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """All patches but the last are visible; its values are the labels.

        Args:
            batch: "values" (N, C, 1, W).
        """
        patches_BPV = patches_of(batch["values"], self.patch)
        B, P = patches_BPV.shape[:2]
        labels_BV = patches_BPV[:, -1]
        visible_BP = torch.arange(P - 1, device=labels_BV.device).expand(B, -1)
        inputs = {"values": batch["values"], "visible_BP": visible_BP}
        return Example(inputs, labels_BV, torch.tensor(labels_BV.numel()))

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """float32 scalar: the sum of squared errors over the values of the last patch."""
        error: Tensor = drawn(model, example) - example.labels
        return error.square().sum()


class NextValues(Task):
    """Continue a series: the values of its last patch from those before it."""

    scored: ClassVar[Mapping[str, Score]] = {"squared_error": SQUARED_ERROR}
    reads = "values"
    budgets = ("all",)
    ability = "predict"
    columns: ClassVar[Mapping[str, str]] = {"values": "string"}
    baseline = LastValue()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """Every window of the corpus."""
        samples = open_samples(corpus, spec)
        if samples["train"].shape.height != 1:
            raise ConfigError(
                f"the task {spec.task} continues a series, and the corpus has samples of"
                f" {samples['train'].shape.height} rows",
                fix="choose class_of_sample, or ingest a series",
            )
        rows = {split: TaskRows({"values": _everything(of)["values"]}, of.documents()) for split, of in samples.items()}
        return TaskData(Facts(spec, []), **rows)

    def objective(self, trunk: Pretrained, facts: Facts) -> Objective:
        """Squared error of the last patch."""
        return NextPatch(trunk.spec.patch)

    def model(self, trunk: Pretrained, facts: Facts, seed: int) -> nn.Module:
        """The family's own model: what drew hidden patches goes on to draw the next one."""
        return whole_model(trunk, seed)

    def take_over(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """All of it."""
        load_whole(model, weights)

    def answer(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Tally:
        """The squared errors, summed."""
        squares, count = summed_loss(model, NextPatch(model.stem.patch), rows)  # type: ignore[union-attr, arg-type]
        return {"squares": squares, "count": count}

    def scores(self, tally: Tally) -> dict[str, float]:
        """Mean squared error, in variances of the training data."""
        mean = tally["squares"] / tally["count"]
        return {"squared_error": mean, "loss": mean}

    def reply(self, model: nn.Module, item: str | Tensor, facts: Facts) -> Reply:
        """The values that come after a window, as JSON: a list for each channel."""
        assert isinstance(item, Tensor), "values are read by the corpus's own features"
        h, w = model.stem.patch  # type: ignore[union-attr, misc]
        later = torch.cat([item[..., w:], item[..., -w:]], dim=-1)  # what the last places hold is not looked at
        example = NextPatch((h, w)).prepare({"values": later[None]}, 0)
        return {"values": json.dumps([channel.tolist() for channel in drawn(model, example)[0].view(len(item), w)])}


def drawn(model: nn.Module, example: Example) -> Tensor:
    """(B, values) what a masked autoencoder draws in the last place."""

    def last(head: nn.Module, x_BPD: Tensor, layout: Layout) -> Tensor:
        values_BPV: Tensor = head(x_BPD, layout)
        return values_BPV[:, -1].float()

    values_BV: Tensor = model(**example.inputs, finish=last)
    return values_BV


def open_samples(corpus: Path, spec: FinetuneSpec, caption_tokens: int | None = None) -> dict[Split, Samples]:
    """The samples of a corpus of values, by split.

    Args:
        caption_tokens: what captions are padded or cut to.

    Raises:
        ConfigError: the corpus has no values.
    """
    if not (corpus / "samples").is_dir():
        raise ConfigError(
            f"the task {spec.task} is about images, audio or series, and the corpus is text",
            fix="choose a task on text, such as package_of_fragment, or ingest another source",
        )
    features = load_features(corpus)
    return {split: Samples(ShardDataset(corpus / "samples" / split), features, caption_tokens) for split in SPLITS}


def _everything(samples: Samples) -> dict[str, Tensor]:
    return samples.gather(torch.arange(len(samples)))


def _classes(groups: Mapping[Split, list[str]], spec: FinetuneSpec) -> list[str]:
    """The groups that become classes, sorted by name: those with most training samples among those with enough.

    Raises:
        ConfigError: there are too few, with what each group has.
    """
    of = {split: Counter(names) for split, names in groups.items()}
    able = [name for name in of["train"] if name and of["train"][name] >= spec.few_labels]
    able = [name for name in able if of["validation"][name] and of["test"][name]]
    able.sort(key=lambda name: (-of["train"][name], name))
    if len(able) < spec.least_classes:
        counts = [
            f"{name or '(no group)'} {'/'.join(str(of[split][name]) for split in SPLITS)}" for name in of["train"]
        ]
        raise ConfigError(
            f"{len(able)} groups can be classes of the task. A class needs {spec.few_labels} training samples, and one"
            f" each in validation and test. Samples in train/validation/test: {'; '.join(sorted(counts)[:12])}",
            allowed=f"{spec.least_classes} classes or more",
            fix="lower finetune.least_classes or few_labels, or add labelled samples",
        )
    return sorted(able[: spec.classes])


def _of_classes(rows: TaskRows, groups: Sequence[str], classes: Sequence[str]) -> TaskRows:
    """The rows of the groups that are classes, with their labels."""
    number = {name: place for place, name in enumerate(classes)}
    found = rows.select(torch.tensor([row for row, group in enumerate(groups) if group in number]))
    labels = torch.tensor([number[group] for group in groups if group in number])
    return replace(found, tensors={**found.tensors, "labels": labels})


def _names(train: TaskRows) -> dict[str, int]:
    """The class of each caption that samples of one class alone have."""
    classes: dict[str, set[int]] = defaultdict(set)
    for caption, label in zip(train.references, train.labels.tolist(), strict=True):
        classes[caption.strip()].add(label)
    return {caption: min(of) for caption, of in sorted(classes.items()) if len(of) == 1}


def _labelled(samples: Samples, groups: list[str], classes: list[str]) -> TaskRows:
    number = {name: place for place, name in enumerate(classes)}
    rows = torch.tensor([row for row, group in enumerate(groups) if group in number])
    documents = samples.documents()
    return TaskRows(
        {
            "inputs": samples.gather(rows)["values"],
            "labels": torch.tensor([number[groups[row]] for row in rows.tolist()]),
        },
        documents=[documents[row] for row in rows.tolist()],
    )

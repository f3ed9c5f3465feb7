"""What a trained model is examined in. Each examination says itself whether model and data allow it.

Subject --fits?--> Examination --hold--> Found: scores, samples, metrics, sentences
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from foundation_core.adapt.tasks import Task, TaskData
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.trials import training_rows
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.tokens.byte_level import END_ID
from foundation_core.errors import ConfigError
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.evaluate.pairs import class_vectors, embed_texts, embed_values, recall
from foundation_core.evaluate.pictures import PICTURES_FILE, reconstructions
from foundation_core.evaluate.samples import choose_prompts, judge, share_parsed
from foundation_core.generation.texts import Begun, Ending, rows_of, texts_of
from foundation_core.model.transformer import DualEncoder, MaskedAutoencoder, Model, Reader
from foundation_core.objectives.base import Objective
from foundation_core.objectives.language import Prefix
from foundation_core.specs import EvaluateSpec
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result
from foundation_core.weights import load_weights, save_weights

_AMONG = (1, 5)
_TOLD_CHARACTERS = 160


@dataclass(frozen=True)
class Subject:
    """Who is examined: a pretrained model, the task models that came of it, and the data of both.

    Args:
        folder: where files may be left.
    """

    spec: EvaluateSpec
    corpus: Result
    trunk: Result
    finetuned: Result
    pretrained: Pretrained
    model: Reader
    objective: Objective
    data: TrainingData
    task: Task
    task_data: TaskData
    folder: Path

    def test_rows(self, most: int) -> Tensor:
        """Numbers of rows of the test split, spread over all of it."""
        return Order(len(self.data.test), self.spec.seed).take(0, min(most, len(self.data.test)))


@dataclass(frozen=True)
class Found:
    """What came out of an examination.

    Args:
        scores: what the same inputs give again.
        samples: what the model made, for people.
        metrics: for the tracker.
        sentences: for whoever watches.
        speed: what another run will give otherwise.
    """

    scores: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    speed: Mapping[str, float] = field(default_factory=dict)


class Examination(Protocol):
    """One of `EXAMINATIONS`."""

    name: str
    phase: str

    def fits(self, subject: Subject) -> bool:
        """Whether it can be held."""

    def hold(self, subject: Subject) -> Found:
        """What it finds; its scores stand under its name."""


class TestLoss:
    """The model's own objective on rows of the test split; of a text, what it costs."""

    name, phase = "test", "score the test rows"

    def fits(self, subject: Subject) -> bool:
        """Always."""
        return True

    def hold(self, subject: Subject) -> Found:
        """The loss of the best checkpoint."""
        objective, test = subject.objective, subject.data.test
        rows = subject.test_rows(subject.spec.test_rows)
        total = score_rows(subject.model, objective, test, rows, subject.data.token_bytes)
        named = total.named(objective.unit)
        if objective.likelihood:
            named["perplexity"] = total.perplexity
        step = subject.trunk.summary["best_step"]
        facts = {"unit": objective.unit, "rows": len(rows), "rows_of_split": len(test), "checkpoint_step": step}
        if isinstance(test, Samples) and test.captioned:
            facts["captions_cut"], _ = test.captions_cut()
        told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in named.items())
        return Found(
            scores={**named, **asdict(total), **facts},
            metrics={f"test/{name}": value for name, value in named.items()},
            sentences=[f"test: {told} (checkpoint of step {step}, the best on validation)"],
        )


class TaskBaseline:
    """What the task's yardstick scores, on the very rows that each seed's trials had."""

    name, phase = "baseline", "fit the baseline"

    def fits(self, subject: Subject) -> bool:
        """Always: every task has one."""
        return True

    def hold(self, subject: Subject) -> Found:
        """The baseline's scores, by how many labels it learned from."""
        task, data, spec = subject.task, subject.task_data, subject.task_data.facts.spec
        seeds = {"few": spec.seeds, "all": spec.seeds[:1]}
        scores, metrics, sentences = dict[str, Any](), dict[str, float](), []
        for labels in task.budgets:
            rows = [training_rows(task, data, labels, seed) for seed in seeds[labels]]
            tallies = [task.baseline.answer(task, data, train, subject.pretrained) for train in rows]
            scored = [task.scores(tally) for tally in tallies]
            values = [of[task.deciding] for of in scored]
            known = [name for name in task.scored if name in scored[0]]  # no baseline says what a text costs
            means = {name: fmean(of[name] for of in scored) for name in known}
            scores[labels] = {**means, "values": values}
            metrics |= {f"task/baseline-{labels}/{name}": value for name, value in means.items()}
            label = task.scored[task.deciding].label
            sentences.append(f"{task.baseline.label}, {labels} labels: test {label} {fmean(values):.3f}")
        return Found({"label": task.baseline.label, **scores}, metrics=metrics, sentences=sentences)


class Continuations:
    """The recipe's own prompts, and how the pretrained model goes on."""

    name, phase = "prompts", "continue the prompts"

    def fits(self, subject: Subject) -> bool:
        """Whether there are prompts, and a model that continues texts."""
        return bool(subject.spec.prompts) and _continues_texts(subject)

    def hold(self, subject: Subject) -> Found:
        """A sample for each prompt, told in one line each."""
        spec, tokenizer = subject.spec, subject.data.tokenizer
        assert tokenizer is not None, "a text corpus has a tokenizer"
        prompts = [unicodedata.normalize("NFC", prompt) for prompt in spec.prompts]
        begun = _begun(subject, [tokenizer.encode(prompt).ids for prompt in prompts])
        texts = texts_of(begun, spec.sample_tokens, spec, Ending(END_ID, tokenizer.decode))
        pairs = list(zip(prompts, texts, strict=True))
        return Found(
            scores={"rows": len(pairs)},
            samples=[{"prompt": prompt, "completion": completion} for prompt, completion in pairs],
            sentences=[_in_one_line(f"{prompt} | {completion}") for prompt, completion in pairs],
        )


class PythonSamples:
    """Definitions of test documents, continued; and whether Python can read them."""

    name, phase = "samples", "generate samples"

    def fits(self, subject: Subject) -> bool:
        """Whether the model continues texts."""
        return _continues_texts(subject)

    def hold(self, subject: Subject) -> Found:
        """The samples, the share that parses, and the tokens generated a second."""
        spec, tokenizer = subject.spec, subject.data.tokenizer
        assert tokenizer is not None, "a text corpus has a tokenizer"
        prompts = choose_prompts(_test_documents(subject.corpus.folder), spec.samples, spec.seed)
        if not prompts:
            return Found()
        begun = _begun(subject, [tokenizer.encode(prompt.text).ids for prompt in prompts])
        ending = Ending(END_ID, tokenizer.decode)
        start = time.perf_counter()
        rows = rows_of(begun, spec.sample_tokens, spec, ending)
        per_second = sum(map(len, rows)) / (time.perf_counter() - start)
        real = [[*tokenizer.encode(prompt.rest).ids, END_ID][: spec.sample_tokens] for prompt in prompts]

        def text(row: list[int]) -> str:
            """One that is ended has only whole lines."""
            decoded = ending.text(row, spec)
            ended = row[-1] == END_ID and decoded == tokenizer.decode(row)  # and was not cut before a stop text
            return f"{decoded}\n" if ended else decoded

        samples = [
            judge(prompt, text(row), text(of_document))
            for prompt, row, of_document in zip(prompts, rows, real, strict=True)
        ]
        shares = share_parsed(samples)
        return Found(
            scores=shares,
            samples=[asdict(sample) for sample in samples],
            metrics={"samples/parsed_fraction": shares["parsed_fraction"], "samples/tokens_per_second": per_second},
            sentences=[
                f"samples: {shares['parsed_fraction']:.0%} parse; of the real text, cut alike,"
                f" {shares['reference_parsed_fraction']:.0%}"
            ],
            speed={"samples_tokens_per_second": per_second},
        )


class TaskSamples:
    """What the best task model writes for rows of the test, beside what it should have written."""

    name, phase = "answers", "write answers"

    def fits(self, subject: Subject) -> bool:
        """Whether answers are texts."""
        return bool(subject.task_data.test.references)

    def hold(self, subject: Subject) -> Found:
        """The first rows of the test with their answers."""
        test, facts, arm = subject.task_data.test, subject.task_data.facts, subject.finetuned.summary["best_arm"]
        name = f"weights/{arm}.safetensors"
        model = subject.task.model(subject.pretrained, facts, seed=0)
        model.load_state_dict(load_weights(subject.finetuned.folder / name, subject.finetuned.outputs[name]))
        rows = test.select(Order(len(test), subject.spec.seed).take(0, min(subject.spec.samples, len(test))))
        answers = subject.task.written(model.eval(), rows, facts)
        prompts = rows.prompts or rows.documents
        samples = [
            {"document": document, "prompt": prompt, "completion": answer, "reference": reference}
            for document, prompt, answer, reference in zip(
                rows.documents, prompts, answers, rows.references, strict=True
            )
        ]
        return Found(scores={"rows": len(samples)}, samples=samples)


class ZeroShot:
    """The class of a test sample by the caption that lies nearest: no label was ever shown."""

    name, phase = "zero_shot", "name classes by captions"

    def fits(self, subject: Subject) -> bool:
        """Whether samples and captions are points in one space, and samples have groups, some of the test as well."""
        if not isinstance(subject.model, DualEncoder):
            return False
        names = _groups(subject)
        return len(names) > 1 and not set(names).isdisjoint(_samples(subject, "test").groups())

    def hold(self, subject: Subject) -> Found:
        """Accuracy by the training captions of each class, and by templates if the spec has some.

        Test samples without a group, or of one that training has not, have no right answer and are left out.
        """
        model, names = cast(DualEncoder, subject.model), _groups(subject)
        test, train = _samples(subject, "test"), _samples(subject, "train")
        captions: dict[str, set[str]] = {name: set() for name in names}
        for group, caption in zip(train.groups(), train.captions(), strict=True):
            if group:
                captions[group].add(caption)
        questions = {"training_captions": {name: sorted(texts) for name, texts in captions.items()}}
        if subject.spec.templates:
            questions["templates"] = _worded(subject.spec, names)
        groups = test.groups()
        rows = [row for row, group in enumerate(groups) if group in captions]
        vectors = embed_values(model, test.gather(torch.tensor(rows))["values"])
        wanted, left_out = [groups[row] for row in rows], len(test) - len(rows)
        scores = {}
        for question, texts in questions.items():
            directions = class_vectors({name: _embedded(subject, each) for name, each in texts.items()})
            scores[question] = recall(vectors, directions, wanted, names, among=1)
        seen = set(train.captions())
        unseen = [text for texts in questions.get("templates", {}).values() for text in texts if text not in seen]
        told = ", ".join(f"{value:.3f} by {question.replace('_', ' ')}" for question, value in scores.items())
        counts = {"unseen_captions": len(unseen), "rows": len(rows), "left_out": left_out}
        without = f"; {left_out} test samples are of no class of training and were left out" if left_out else ""
        return Found(
            scores={**scores, "classes": names, **counts},
            metrics={f"test/zero_shot_{question}": value for question, value in scores.items()},
            sentences=[f"zero-shot accuracy {told}; {len(unseen)} of the templates' captions were never seen{without}"],
        )


class Retrieval:
    """Which test captions belong to a sample, and which samples to a caption; equal captions are one."""

    name, phase = "retrieval", "find pairs"

    def fits(self, subject: Subject) -> bool:
        """Whether samples and captions are points in one space."""
        return isinstance(subject.model, DualEncoder)

    def hold(self, subject: Subject) -> Found:
        """Recall at 1 and at 5, both ways."""
        test = _samples(subject, "test")
        values, captions = embed_values(cast(DualEncoder, subject.model), _all_values(test)), test.captions()
        distinct = sorted(set(captions))
        texts = _embedded(subject, distinct)
        scores = {f"caption_of_sample_at_{k}": recall(values, texts, captions, distinct, k) for k in _AMONG}
        scores |= {f"sample_of_caption_at_{k}": recall(texts, values, distinct, captions, k) for k in _AMONG}
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in scores.items())
        return Found(
            scores={**scores, "samples": len(captions), "captions": len(distinct)},
            metrics={f"test/{name}": value for name, value in scores.items()},
            sentences=[f"recall: {told} ({len(captions)} samples, {len(distinct)} captions)"],
        )


class Pictures:
    """Test samples as they are, as the model sees them, and as it draws them."""

    name, phase = "pictures", "draw hidden patches"

    def fits(self, subject: Subject) -> bool:
        """Whether the model draws hidden patches."""
        return isinstance(subject.model, MaskedAutoencoder)

    def hold(self, subject: Subject) -> Found:
        """A file of the drawn samples, which the plots are made from."""
        rows = subject.test_rows(subject.spec.samples)
        example = subject.objective.prepare({**subject.data.test.gather(rows), "sample": rows}, seed=0)
        model, patch = cast(MaskedAutoencoder, subject.model), subject.pretrained.spec.patch
        save_weights(subject.folder / PICTURES_FILE, {"pictures": reconstructions(model, example, patch)})
        return Found(scores={"rows": len(rows)})


EXAMINATIONS: tuple[Examination, ...] = (
    TestLoss(), TaskBaseline(), Continuations(), PythonSamples(), TaskSamples(), ZeroShot(), Retrieval(), Pictures(),
)  # fmt: skip


def _continues_texts(subject: Subject) -> bool:
    model = subject.model
    return subject.data.packed and isinstance(model, Model) and model.trunk.causal and subject.objective.likelihood


def _begun(subject: Subject, prompts: list[list[int]]) -> Begun:
    return Begun(cast(Model, subject.model), prompts, prefix=isinstance(subject.objective, Prefix))


def _in_one_line(text: str) -> str:
    """The beginning of a text, its white space shortened to one space each."""
    words = " ".join(text.split())
    return words if len(words) <= _TOLD_CHARACTERS else f"{words[:_TOLD_CHARACTERS]} ..."


def _worded(spec: EvaluateSpec, groups: list[str]) -> dict[str, list[str]]:
    if len(spec.class_names) != len(groups):
        raise ConfigError(
            f"evaluate.class_names has {len(spec.class_names)} names, and the corpus {len(groups)} groups:"
            f" {', '.join(groups)}",
            fix="name each of them, in this order",
        )
    names = zip(groups, spec.class_names, strict=True)
    return {group: [template.format(name) for template in spec.templates] for group, name in names}


def _samples(subject: Subject, split: str) -> Samples:
    return cast(Samples, getattr(subject.data, split))


def _groups(subject: Subject) -> list[str]:
    return sorted({group for group in _samples(subject, "train").groups() if group})


def _all_values(samples: Samples) -> Tensor:
    return samples.gather(torch.arange(len(samples)))["values"]


def _embedded(subject: Subject, texts: Sequence[str]) -> Tensor:
    assert subject.data.tokenizer is not None, "captions have a tokenizer"
    model = cast(DualEncoder, subject.model)
    return embed_texts(model, subject.data.tokenizer, texts, subject.pretrained.spec.context_tokens)


def _test_documents(corpus: Path) -> Iterator[tuple[str, str]]:
    for table in ShardDataset(corpus / "documents").tables():
        columns = (table[name].to_pylist() for name in ("document", "split", "text"))
        yield from ((document, text) for document, split, text in zip(*columns, strict=True) if split == "test")

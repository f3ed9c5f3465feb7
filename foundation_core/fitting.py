"""What goes together: families, objectives, tasks and sources, as far as names can tell before anything is built.

A name that is not in these tables is of another package, and is not judged here: building it will tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

Kind = Literal["text", "image", "audio", "series"]

TEXT_FRACTION = 0.15
"""Of a text's tokens so many are hidden where a recipe does not say. Source: Devlin et al. 2019, BERT, section 3.1."""
PATCH_FRACTION = 0.75
"""Of a sample's patches. Source: He et al. 2022, Masked Autoencoders Are Scalable Vision Learners, section 3."""


class Family(NamedTuple):
    """What a family reads, what it can be pretrained for, and the tasks that need more than its reading side.

    Args:
        reads: text or values.
        objectives: that its outputs answer.
        tasks: that go on with its own decoder.
        trunks: that it is built of.
        experts: whether its objectives have the routers of experts use all of them.
    """

    reads: Literal["text", "values"]
    objectives: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    trunks: Literal[1, 2] = 1
    experts: bool = False


class Task(NamedTuple):
    """What a task is about.

    Args:
        needs_decoder: whether it goes on with a family's own decoder.
        answers: where an answer of text stands: in a row of its own, or behind what was asked.
        kind: of the only values that it is about; None: any.
    """

    reads: Literal["text", "values"]
    needs_decoder: bool = False
    answers: Literal["none", "apart", "behind"] = "none"
    kind: Kind | None = None


class Source(NamedTuple):
    """What a source holds.

    Args:
        captioned: None: where the spec names a column of captions.
        groups: that its items have; None: other corpora have others.
    """

    kind: Kind
    captioned: bool | None = False
    groups: int | None = None


class Spans(NamedTuple):
    """What span corruption cuts out of a text.

    Args:
        cut_tokens: that are cut out.
        spans: that they are cut out in, each of which takes a sentinel.
    """

    cut_tokens: int
    spans: int

    @classmethod
    def of(cls, tokens: int, fraction: float, span_tokens: float) -> Spans:
        """Those of a text of so many tokens, two or more; a longer one has no fewer of either.

        Args:
            fraction: share of the tokens that are cut out.
            span_tokens: mean length of a span.
        """
        cut = min(max(1, round(tokens * fraction)), tokens - 1)
        return cls(cut, min(max(1, round(cut / span_tokens)), cut, tokens - cut))


class Patches(NamedTuple):
    """What masked patches show of a sample, and what they hide of it."""

    visible: int
    hidden: int

    @classmethod
    def of(cls, patches: int, fraction: float) -> Patches:
        """Those of a sample of so many patches.

        Args:
            fraction: share of the patches that are hidden.
        """
        visible = max(1, round(patches * (1 - fraction)))
        return cls(visible, patches - visible)


class Choice(NamedTuple):
    """What a recipe chooses.

    Args:
        task: None where the run ends before fine-tuning.
        special: of the tokenizer: mask, start, sentinels; those that there are.
        sizes: height and width of values by kind.
        augmented: whether values differ each time that they are seen.
        position: how a token of the first trunk knows its place.
        context_tokens: of a row of text.
        sentinels: that the tokenizer has.
        spans: what span corruption cuts out of a row; None where it is not the objective.
        hidden_fraction: share of its patches that masked patches hide.
        experts: of the first trunk.
        second_experts: of the second trunk; None where the recipe says nothing of one.
        class_names: that go into the templates of an evaluation; None where there are none, or no evaluation.
    """

    source: str
    caption_field: str | None
    family: str
    objective: str
    task: str | None
    patch: tuple[int, int]
    special: frozenset[str]
    sizes: Mapping[str, tuple[int, int]]
    augmented: bool = False
    position: str = "rotary"
    context_tokens: int = 0
    sentinels: int = 0
    spans: Spans | None = None
    hidden_fraction: float = PATCH_FRACTION
    experts: int = 0
    second_experts: int | None = None
    class_names: int | None = None


FAMILIES: Mapping[str, Family] = {
    "decoder": Family("text", ("next_token", "prefix"), ("complete_function", "continue_text")),
    "mixture": Family("text", ("balanced_next_token",), ("complete_function", "continue_text"), experts=True),
    "encoder": Family("text", ("masked_token",)),
    "encoder_decoder": Family("text", ("span_corruption",), ("docstring_of_function",), trunks=2),
    "masked_autoencoder": Family("values", ("masked_patches",), ("next_values",), trunks=2),
    "dual_encoder": Family("values", ("contrastive",), trunks=2),
    "captioner": Family("values", ("captioning",), ("caption_of_sample", "caption_naming_class"), trunks=2),
}
NEEDED_TOKENS: Mapping[str, tuple[str, ...]] = {
    "masked_token": ("mask",),
    "span_corruption": ("start", "sentinels"),
    "captioning": ("start",),
}
READ_A_PREFIX_WHOLE = ("prefix", "complete_function")
"""Objectives and tasks in which a causal trunk reads a part of its row both ways."""
NEED_CAPTIONS = ("contrastive", "captioning", "caption_of_sample", "caption_naming_class")
TASKS: Mapping[str, Task] = {
    "package_of_fragment": Task("text"),
    "token_types": Task("text"),
    "docstring_of_function": Task("text", needs_decoder=True, answers="apart"),
    "complete_function": Task("text", needs_decoder=True, answers="behind"),
    "continue_text": Task("text", needs_decoder=True, answers="behind"),
    "class_of_sample": Task("values"),
    "caption_of_sample": Task("values", needs_decoder=True, answers="apart"),
    "caption_naming_class": Task("values", needs_decoder=True, answers="apart"),
    "next_values": Task("values", needs_decoder=True, kind="series"),
}
SOURCES: Mapping[str, Source] = {
    "python_stdlib": Source("text"),
    "folder": Source("text"),
    "table": Source("text"),
    "book": Source("text"),
    "digits": Source("image", groups=10),
    "digits_with_captions": Source("image", captioned=True, groups=10),
    "image_folder": Source("image"),
    "image_table": Source("image", captioned=None),
    "audio_folder": Source("audio"),
    "audio_table": Source("audio", captioned=None),
    "spoken_digits": Source("audio"),
    "spoken_digit_strings": Source("audio", captioned=True),
    "series_table": Source("series"),
    "wave_folder": Source("series"),
}


def misfits(choice: Choice) -> Iterator[str]:
    """What does not go together, a sentence each."""
    family, source = FAMILIES.get(choice.family), SOURCES.get(choice.source)
    known = {name for each in FAMILIES.values() for name in each.objectives}
    if family is not None and choice.objective in known and choice.objective not in family.objectives:
        yield f"pretrain.objective={choice.objective} {_why(choice, family)}; allowed: {', '.join(family.objectives)}"
    if family is not None:
        yield from _of_trunks(choice, family)
    if missing := [name for name in NEEDED_TOKENS.get(choice.objective, ()) if name not in choice.special]:
        yield (
            f"pretrain.objective={choice.objective} needs a tokenizer with {' and '.join(missing)};"
            f" set ingest.tokenizer.special"
        )
    elif choice.spans is not None:
        yield from span_misfits(choice.spans, choice.context_tokens, choice.sentinels)
    for name in (choice.objective, choice.task):
        if name in READ_A_PREFIX_WHOLE and (reason := prefix_misfit(choice.position)):
            yield f"{name}: {reason}"
    if source is not None:
        yield from _of_source(choice, source, family)
    if choice.task is not None:
        yield from _of_task(choice, choice.task, family, source)


def span_misfits(spans: Spans, context_tokens: int, sentinels: int) -> Iterator[str]:
    """Why spans do not fit a row that one document fills, a sentence each; of several, each has an end of its own."""
    if spans.spans > sentinels:
        yield (
            f"span_corruption cuts {spans.spans} spans out of a row of {context_tokens} tokens, and the tokenizer has"
            f" {sentinels} sentinels; set ingest.tokenizer.special.sentinels={spans.spans} or raise masking.span_tokens"
        )
    if (target := spans.cut_tokens + spans.spans + 1) > context_tokens:
        yield (
            f"span_corruption asks for up to {target} tokens of a document that fills a row of {context_tokens}:"
            f" {spans.cut_tokens} that are cut out, {spans.spans} sentinels and the end;"
            " lower masking.fraction, or raise masking.span_tokens"
        )


def patch_misfits(patches: int, fraction: float) -> Iterator[str]:
    """Why masked patches have nothing to ask of a sample of so many patches, in a sentence.

    Args:
        fraction: share of the patches that are to be hidden.
    """
    if patches < 2:
        yield "masked_patches shows patches and hides others, and a sample is one patch; lower pretrain.model.patch"
    elif not Patches.of(patches, fraction).hidden:
        yield (
            f"pretrain.masking.fraction={fraction:g} hides none of the {patches} patches of a sample;"
            f" raise it to {math.ceil(1000 / patches) / 1000:g} or more"
        )


def prefix_misfit(position: str) -> str | None:
    """Why a causal trunk whose tokens know their places so cannot read a prefix whole; None where it can."""
    if position != "relative":
        return None
    return (
        "a prefix is read both ways, and trunk.position=relative has numbers for what stands before a token alone in a"
        " causal trunk; allowed: rotary, learned, sinusoidal, alibi, none"
    )


def reads_text(source: str) -> bool:
    """Whether rows are fragments of a text, or may be: the source is not known here."""
    return source not in SOURCES or SOURCES[source].kind == "text"


def room_for_answer(task: str, context_tokens: int, fragment_tokens: int) -> int | None:
    """Tokens that an answer may have; None where there is none."""
    answers = TASKS[task].answers if task in TASKS else "none"
    return {"none": None, "apart": context_tokens, "behind": context_tokens - fragment_tokens}[answers]


def is_about_captions(task: str) -> bool:
    """Whether the answers of a task are texts beside values."""
    return task in TASKS and TASKS[task].reads == "values" and TASKS[task].answers != "none"


def _of_source(choice: Choice, source: Source, family: Family | None) -> Iterator[str]:
    holds = "text" if source.kind == "text" else "values"
    if family is not None and family.reads != holds:
        other = ", ".join(name for name, each in FAMILIES.items() if each.reads == holds)
        yield (
            f"the family {choice.family} reads {family.reads}, and the source {choice.source} holds"
            f" {_said(source.kind)}; allowed for it: {other}"
        )
    if choice.augmented and holds == "text":
        yield f"augment changes values, and the source {choice.source} holds text"
    captioned = source.captioned if source.captioned is not None else choice.caption_field is not None
    for name in (choice.objective, choice.task):
        if name in NEED_CAPTIONS and not captioned:
            yield f"{name} needs captions, and the source {choice.source} has none"
    if family is not None and family.reads == holds == "values":
        yield from _of_patches(choice, source)
    asked = choice.class_names is not None and choice.family == "dual_encoder"
    if asked and source.groups is not None and choice.class_names != source.groups:
        yield (
            f"evaluate.class_names has {choice.class_names} names, and the source {choice.source} has"
            f" {source.groups} groups; name each of them, in the order of the groups' own names"
        )


def _of_patches(choice: Choice, source: Source) -> Iterator[str]:
    (height, width), (h, w) = choice.sizes[source.kind], choice.patch
    if height % h or width % w:
        yield (
            f"pretrain.model.patch={h} x {w} does not divide the samples of"
            f" {height} x {width} that ingest.{source.kind} makes"
        )
        return
    patches = (height // h) * (width // w)
    if choice.objective == "masked_patches":
        yield from patch_misfits(patches, choice.hidden_fraction)
    if choice.task == "next_values" and source.kind == "series" and patches < 2:
        yield (
            f"finetune.task=next_values draws the last patch from those before it, and pretrain.model.patch={h} x {w}"
            f" takes the whole sample of {height} x {width}; lower it, or raise ingest.series.window"
        )


def _of_trunks(choice: Choice, family: Family) -> Iterator[str]:
    if choice.second_experts is not None and family.trunks == 1:
        other = ", ".join(name for name, each in FAMILIES.items() if each.trunks == 2)
        yield (
            f"pretrain.model.second_trunk is set, and the family {choice.family} has one trunk; remove it, or choose a"
            f" family with two: {other}"
        )
    if family.experts and not choice.experts:
        yield (
            f"pretrain.model.trunk.experts=0, and the family {choice.family} passes each token through some of several"
            " experts; set it, such as 4, or choose the family decoder"
        )
    if family.experts:
        return
    able = ", ".join(name for name, each in FAMILIES.items() if each.experts)
    second = choice.second_experts if family.trunks == 2 else None
    for trunk, experts in (("trunk", choice.experts), ("second_trunk", second)):
        if experts:
            yield (
                f"pretrain.model.{trunk}.experts={experts}: no objective of the family {choice.family} has its routers"
                f" use all their experts; set it to 0, or choose a family of experts: {able}"
            )


def _of_task(choice: Choice, name: str, family: Family | None, source: Source | None) -> Iterator[str]:
    task = TASKS.get(name)
    if task is None:
        return
    holds = None if source is None else "text" if source.kind == "text" else "values"
    if holds is not None and task.reads != holds:
        other = ", ".join(other for other, each in TASKS.items() if each.reads == holds)
        yield f"finetune.task={name} is about {task.reads}, and the source {choice.source} holds {holds}; try {other}"
    elif source is not None and task.kind is not None and task.kind != source.kind:
        other = ", ".join(other for other, each in TASKS.items() if each.reads == holds and not each.needs_decoder)
        yield (
            f"finetune.task={name} is about {_said(task.kind)}, and the source {choice.source} holds"
            f" {_said(source.kind)}; try {other}"
        )
    elif family is not None and task.needs_decoder and name not in family.tasks:
        able = ", ".join(other for other, each in FAMILIES.items() if name in each.tasks)
        yield f"finetune.task={name} goes on with the decoder of {able}, and the family is {choice.family}"


def _why(choice: Choice, family: Family) -> str:
    if family.experts and choice.objective in ("next_token", "prefix"):
        return (
            f"leaves the routers of the family {choice.family} unbalanced: they would soon send all tokens to a few of"
            " the experts"
        )
    reason = {
        "masked_token": "a trunk that reads only backwards cannot be asked what stands on both sides",
        "next_token": "a trunk that reads both ways has seen the answer",
        "prefix": "a trunk that reads both ways has seen the answer",
        "balanced_next_token": "it balances the experts that the family mixture has",
        "span_corruption": "it needs an encoder and a decoder of text",
        "masked_patches": "it needs a decoder that draws patches",
        "contrastive": "it needs two sides in one space",
        "captioning": "it needs a decoder that reads values",
    }[choice.objective]
    return f"asks what the family {choice.family} cannot answer: {reason}"


def _said(kind: Kind) -> str:
    return {"text": "text", "image": "images", "audio": "recordings", "series": "series"}[kind]

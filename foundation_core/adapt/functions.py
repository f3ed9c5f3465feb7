"""Tasks on Python functions: what a function's docstring says, and how its body goes."""

from __future__ import annotations

import ast
import hashlib
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from foundation_core.adapt.baselines import FunctionName, PromptAgain
from foundation_core.adapt.scores import BITS_PER_BYTE, CHRF, Score
from foundation_core.adapt.tasks import Facts, TaskData, TaskRows, corpus_tokenizer
from foundation_core.adapt.write import (
    Answering,
    ContinuingTask,
    WritingTask,
    begun_beside,
    padded_rows,
    source_layout,
)
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS, Split
from foundation_core.data.tokens.byte_level import END_ID, start_id
from foundation_core.errors import ConfigError
from foundation_core.generation.texts import Begun
from foundation_core.model.layout import PADDING, Layout
from foundation_core.objectives.base import IGNORE, Example, Objective
from foundation_core.objectives.language import NextToken
from foundation_core.specs import FinetuneSpec

Measure = Callable[["Function"], int]
_OF_A_DOCUMENT = 4
"""Functions taken from one document, at the most: a few large modules must not be the whole task."""


@dataclass(frozen=True)
class Function:
    """A function that has a docstring and a body.

    Args:
        head: its signature, without the line's end and without decorators.
        docstring: its lines, indented, without the last line's end.
        summary: the docstring's first paragraph, in one line.
        body: what follows, with the line's end before it.
    """

    document: str
    head: str
    docstring: str
    summary: str
    body: str


class DocstringOfFunction(WritingTask):
    """From a function without its docstring, write the docstring's first paragraph."""

    scored: ClassVar[Mapping[str, Score]] = {"chrf": CHRF, "bits_per_byte": BITS_PER_BYTE}
    reads = "text"
    baseline = FunctionName()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """As many functions as the spec says, a few of each document; which ones, a keyed hash decides."""
        facts = Facts(spec, [], corpus_tokenizer(corpus))
        start_id(facts.text)
        functions = _functions(corpus, spec, seed)
        return TaskData(facts, **{split: self._rows(functions[split], facts) for split in SPLITS})

    def _rows(self, functions: list[Function], facts: Facts) -> TaskRows:
        answers = [_cut(facts.text, function.summary, facts.spec.answer_tokens) for function in functions]
        tokens, segment = padded_rows(answers)
        prompts = [function.head + function.body for function in functions]
        return TaskRows(
            {**_sources(prompts, facts), "tokens": tokens, "segment": segment},
            documents=[function.document for function in functions],
            prompts=prompts,
            references=facts.text.decode_batch(answers),
        )

    def asked(self, facts: Facts) -> Objective:
        """The tokens of the docstring."""
        return Answering(start_id(facts.text))

    def questions(self, items: Sequence[str | Tensor], facts: Facts) -> TaskRows:
        """Functions' sources."""
        return TaskRows(_sources(cast(Sequence[str], items), facts), ["asked"] * len(items))

    def begun(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Begun:
        """Docstrings beside the functions."""
        return begun_beside(model, rows.tensors["source"], source_layout(rows.tensors), facts.text)


class Completion(NextToken):
    """Predict each token behind a prefix that is read whole.

    Source: Raffel et al. 2020, T5, section 3.2.1 (the prefix language model).
    """

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """One order for the prefix, labels behind it.

        Args:
            batch: tokens and segment (N, T + 1), prefix (N,) how many tokens each row's prefix has.
        """
        tokens, segment, prefix_B1 = batch["tokens"], batch["segment"], batch["prefix"][:, None]
        place_BT = torch.arange(tokens.shape[1] - 1, device=tokens.device).expand(len(tokens), -1)
        is_label = (place_BT + 1 >= prefix_B1) & (segment[:, 1:] != PADDING)
        order_BT = torch.where(place_BT < prefix_B1, prefix_B1 - 1, place_BT)
        layout = Layout(place_BT, segment[:, :-1], order_BT)
        labels = torch.where(is_label, tokens[:, 1:], IGNORE)
        return Example({"inputs": tokens[:, :-1], "layout": layout}, labels, is_label.sum())


class CompleteFunction(ContinuingTask):
    """From a function's signature and docstring, write its body."""

    reads_prefix_whole = True

    scored: ClassVar[Mapping[str, Score]] = {"chrf": CHRF, "bits_per_byte": BITS_PER_BYTE}
    baseline = PromptAgain()

    def data(self, corpus: Path, spec: FinetuneSpec, seed: int = 0) -> TaskData:
        """As many functions as the spec says whose signature and docstring are no longer than a fragment."""
        facts = Facts(spec, [], corpus_tokenizer(corpus))
        functions = _functions(corpus, spec, seed, fits=lambda f: len(facts.text.encode(_prompt(f)).ids))
        return TaskData(facts, **{split: self._rows(functions[split], facts) for split in SPLITS})

    def _rows(self, functions: list[Function], facts: Facts) -> TaskRows:
        prompts = [_prompt(function) for function in functions]
        heads = [facts.text.encode(prompt).ids for prompt in prompts]
        bodies = [_cut(facts.text, function.body, facts.spec.answer_tokens) for function in functions]
        tokens, segment = padded_rows([head + body for head, body in zip(heads, bodies, strict=True)])
        return TaskRows(
            {"tokens": tokens, "segment": segment, "prefix": torch.tensor([len(head) for head in heads])},
            documents=[function.document for function in functions],
            prompts=prompts,
            references=facts.text.decode_batch(bodies),
        )

    def asked(self, facts: Facts) -> Objective:
        """The tokens of the body."""
        return Completion()


def functions_of(document: str, text: str) -> Iterator[Function]:
    """The functions of a module that have a docstring on lines of its own and something behind it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in the text
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        summary = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        first, second = node.body[:2]
        begin, end, rest = first.lineno - 1, first.end_lineno or 0, second.lineno - 1
        if not summary or begin < node.lineno or rest < end:
            continue
        whole = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])).split("\n")
        cuts = [place - (node.lineno - 1) for place in (begin, end)]
        head, docstring, body = whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :]
        yield Function(document, "\n".join(head), "\n".join(docstring), summary, "\n" + "\n".join(body))


def _functions(corpus: Path, spec: FinetuneSpec, seed: int, fits: Measure | None = None) -> dict[Split, list[Function]]:
    """So many functions of each split.

    Args:
        fits: tokens of a function that must not exceed a fragment. None: any does.

    Raises:
        ConfigError: the corpus is no text, or a split holds no such function.
    """
    if not (corpus / "tokens").is_dir():
        raise ConfigError(f"the task {spec.task} is about source code, and the corpus is none", fix="choose another")
    texts: dict[Split, list[tuple[bytes, str, str]]] = {split: [] for split in SPLITS}
    for table in ShardDataset(corpus / "documents").tables():
        columns = (table[name].to_pylist() for name in ("document", "split", "text"))
        for document, split, text in zip(*columns, strict=True):
            texts[split].append((_key(seed, document), document, text))
    found = {split: list(_chosen(texts[split], split, spec, seed, fits)) for split in SPLITS}
    if missing := [split for split in SPLITS if not found[split]]:
        raise ConfigError(
            f"the corpus holds no Python functions with a docstring in {', '.join(missing)}",
            fix="choose another task, or ingest source code",
        )
    return found


def _chosen(
    texts: list[tuple[bytes, str, str]], split: Split, spec: FinetuneSpec, seed: int, fits: Measure | None
) -> Iterator[Function]:
    left = spec.all_labels if split == "train" else spec.evaluation_labels
    for _, document, text in sorted(texts):
        able = [f for f in functions_of(document, text) if fits is None or fits(f) <= spec.fragment_tokens]
        able.sort(key=lambda function: _key(seed, document, function.head))
        yield from able[: min(left, _OF_A_DOCUMENT)]
        left -= min(left, _OF_A_DOCUMENT, len(able))
        if not left:
            return


def _sources(texts: Sequence[str], facts: Facts) -> dict[str, Tensor]:
    rows = [facts.text.encode(text).ids[: facts.spec.fragment_tokens] or [END_ID] for text in texts]
    tokens, segment = padded_rows(rows)
    return {"source": tokens, "source_segment": segment}


def _prompt(function: Function) -> str:
    return f"{function.head}\n{function.docstring}"


def _cut(tokenizer: Tokenizer, text: str, most: int) -> list[int]:
    ids: list[int] = [*tokenizer.encode(text).ids, END_ID]
    return ids[:most]


def _key(*parts: object) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()

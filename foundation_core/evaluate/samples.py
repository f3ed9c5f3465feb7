"""Generated Python: how much of it parses, beside how much of the real text does when it is cut in the same way.

    test document -> the line of a definition (prompt) -> completion (generated) and reference (what really follows)

A prompt ends at the colon, so writing nothing is no way to be accepted; and before the line's end, which the tokenizer
joins with the indentation behind it: cut between the two, a model meets a place that its training never showed. Both
texts are as long, in tokens, and both are cut after their last whole line, because a text that ends in the middle says
nothing about its writer.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

_DEFINITION = re.compile(r"^(?:def|class) .*:\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """Where a text is to be continued.

    Args:
        document: id of the document that it comes from.
        text: the line of a definition, up to its colon.
        rest: how the document goes on.
    """

    document: str
    text: str
    rest: str


@dataclass(frozen=True)
class Sample:
    """A generated text beside the real one, and what `ast.parse` says of each.

    Args:
        statements: statements after the definition itself; None where the text does not parse.
        reference_statements: the same of the real text.
    """

    document: str
    prompt: str
    completion: str
    statements: int | None
    reference_statements: int | None


def choose_prompts(documents: Iterable[tuple[str, str]], count: int, seed: int) -> list[Prompt]:
    """A definition from each of `count` documents, or from all that hold one; which ones, a keyed hash decides.

    Args:
        documents: (id, text).
    """
    found = []
    for document, text in documents:
        lines = [match for match in _DEFINITION.finditer(text) if statements(f"{match[0]}    pass\n") is not None]
        if lines:
            match = min(lines, key=lambda line: _key(seed, document, line.start()))
            found.append(Prompt(document, match[0].rstrip("\n"), text[match.end() - 1 :]))
    return sorted(found, key=lambda prompt: _key(seed, prompt.document))[:count]


def whole_lines(text: str) -> str:
    """The text up to the end of its last whole line."""
    return text[: text.rfind("\n") + 1]


def statements(text: str) -> int | None:
    """How many statements Python finds in a text; None if it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes and comparisons in the text
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


def judge(prompt: Prompt, completion: str, reference: str) -> Sample:
    """The sample of a completion and a reference, both cut to whole lines."""
    found = [statements(prompt.text + whole_lines(text)) for text in (completion, reference)]
    inside, reference_inside = (None if count is None else count - 1 for count in found)
    return Sample(prompt.document, prompt.text, completion, inside, reference_inside)


def share_parsed(samples: Sequence[Sample]) -> dict[str, float]:
    """What the samples show: the shares that parse, and the statements in those that do; nothing without samples."""
    if not samples:
        return {}
    ours = [sample.statements for sample in samples if sample.statements is not None]
    real = [sample.reference_statements for sample in samples if sample.reference_statements is not None]
    return {
        "parsed_fraction": len(ours) / len(samples),
        "reference_parsed_fraction": len(real) / len(samples),
        "statements_per_parsed_sample": fmean(ours) if ours else 0.0,
        "statements_per_parsed_reference": fmean(real) if real else 0.0,
    }


def _key(*parts: object) -> bytes:
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()

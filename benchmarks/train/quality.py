"""What a training of so many seconds learns: nats a character of the end of Tiny Shakespeare.

    the first nine tenths -> `foundation pretrain shakespeare`, three seeds -> the last tenth, scored once

The window rule: the text is read in windows of the model's context that overlap by half; of each the second half
counts, of the first window all of it. So every character counts once. A line's end stands before the first one, so that
it has something to follow.

Beside it, on the same split: an interpolated Witten-Bell model of five characters, which only counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cluster.settings import Settings
from cluster.stack import Stack
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.data.sources.book import TEST_FRACTION
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer
from foundation_core.store import Result, load_result

BAR_NATS, AIM_NATS, BAR_SECONDS = 1.55, 1.48, 110.0
RECIPES = Path(__file__).parents[2] / "recipes"
COUNTED_CHARACTERS = 5
_ROWS = 32


class Found(NamedTuple):
    """What a seed's training came to."""

    seed: int
    seconds: float
    steps: int
    tokens: int
    nats: float


def measure(text: Path, seeds: int) -> list[Found]:
    """Train with each seed and score."""
    with ingested(text) as (results, source):
        return [trained(results, seed, text, source, f"seed {seed}") for seed in range(seeds)]


@contextmanager
def ingested(text: Path) -> Iterator[tuple[Path, list[str]]]:
    """Services that are up over an empty data folder, and the text ingested there: its results, and what names it."""
    with tempfile.TemporaryDirectory(prefix="train-shakespeare-") as name:
        os.environ |= {"FOUNDATION_HOME": name, "FOUNDATION_RECIPES": str(RECIPES)}
        source = ["--ingest.source.path", str(text.resolve())]
        stack = Stack(Settings.from_environment())
        try:
            stack.up(print)
            foundation("ingest", *source)
            yield Path(name) / "results", source
        finally:
            stack.down(print)


def trained(results: Path, seed: int, text: Path, arguments: list[str], name: str) -> Found:
    """What a training came to; one line says it."""
    foundation("pretrain", *arguments, "--pretrain.seed", str(seed))
    trunk = load_result(max((results / "pretrain").iterdir(), key=lambda path: path.stat().st_mtime))
    (corpus,) = (load_result(path) for path in (results / "ingest").iterdir())
    said = trunk.summary
    found = Found(seed, said["training_seconds"], said["steps"], said["trained_tokens"], score(trunk, corpus, text))
    print(f"{name}: {found.nats:.4f} nats a character; {found.steps} steps, {found.seconds:.1f} s", flush=True)
    return found


def score(trunk: Result, corpus: Result, text: Path) -> float:
    """Nats a character of the last tenth."""
    characters = text.read_text(encoding="utf-8")
    test = characters[int(len(characters) * (1 - TEST_FRACTION)) :]
    tokenizer = load_tokenizer(corpus.folder / TOKENIZER_FILE)
    ids = torch.tensor(tokenizer.encode("\n" + test).ids)
    pretrained = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE])
    return float(summed_nats(pretrained, ids) / len(test))


@torch.no_grad()
def summed_nats(pretrained: Pretrained, ids: Tensor) -> Tensor:
    """Nats of every id but the first, by the window rule."""
    model, context = pretrained.language_model(), pretrained.spec.context_tokens
    half = context // 2
    starts = range(0, max(1, len(ids) - 1 - half), half)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(starts), _ROWS):
        rows = [ids[start : start + context + 1] for start in starts[first : first + _ROWS]]
        inputs = torch.nn.utils.rnn.pad_sequence([row[:-1] for row in rows], batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence([row[1:] for row in rows], batch_first=True, padding_value=-100)
        for number in range(len(rows)):
            if first or number:
                labels[number, : context - half] = -100
        logits = model(inputs).float()
        total += F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return total


def witten_bell(text: Path) -> float:
    """Nats a character of the last tenth by counts of runs of up to five characters in the rest.

    Source: Witten and Bell 1991, interpolated: (count + kinds x shorter) / (all + kinds).
    """
    characters = text.read_text(encoding="utf-8")
    border = int(len(characters) * (1 - TEST_FRACTION))
    counts = [defaultdict[str, Counter[str]](Counter) for _ in range(COUNTED_CHARACTERS)]
    for place in range(border):
        for length in range(min(place + 1, COUNTED_CHARACTERS)):
            counts[length][characters[place - length : place]][characters[place]] += 1
    totals = [{before: after.total() for before, after in known.items()} for known in counts]
    kinds, nats = len(set(characters)), 0.0
    for place in range(border, len(characters)):
        probability = 1 / kinds
        for length, known in enumerate(counts):
            before = characters[place - length : place]
            if (after := known.get(before)) is not None:
                shorter = len(after) * probability
                probability = (after[characters[place]] + shorter) / (totals[length][before] + len(after))
        nats -= log(probability)
    return nats / (len(characters) - border)


def foundation(stage: str, *arguments: str) -> None:
    """Run a stage of the recipe on the services that are up."""
    command = [str(Path(sys.executable).with_name("foundation")), stage, "shakespeare", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def report(found: list[Found], counted: float) -> int:
    """Print the mean and the bars; the number that were missed."""
    nats, slowest = mean(each.nats for each in found), max(each.seconds for each in found)
    spread = max(each.nats for each in found) - min(each.nats for each in found)
    good, quick = nats <= BAR_NATS, slowest <= BAR_SECONDS
    print(f"Witten-Bell, {COUNTED_CHARACTERS} characters: {counted:.3f} nats a character")
    print(
        f"mean of {len(found)} seeds {nats:.3f} nats a character, spread {spread:.3f}"
        f" (bar {BAR_NATS}) {'met' if good else 'MISSED'} (aim {AIM_NATS})"
    )
    print(f"slowest training {slowest:.1f} s (bar {BAR_SECONDS:g} s) {'met' if quick else 'MISSED'}")
    return (not good) + (not quick)

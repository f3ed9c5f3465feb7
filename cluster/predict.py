"""Predictions for a table: read a batch, ask the model, write the batch, in the order of the rows.

    rows --texts--> predict_texts, here or in Ray's workers --probabilities--> the same rows, with columns added

A text is answered alone and by one thread, so a prediction depends neither on the batch nor on the place.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.job import Job
from cluster.launch import Event, RayLauncher, follow
from cluster.settings import Settings
from foundation_core.data.tables.batches import Row, read_table, write_table
from foundation_core.errors import ConfigError, DataError
from foundation_core.files import read_json
from foundation_core.tracking.registry import load_served_model
from foundation_core.tracking.served import TEXT, ServedModel
from foundation_core.train.threads import one_thread

PREDICTION = "prediction"
PROBABILITY = "probability_"
SUMMARY_FILE = "summary.json"

Probabilities = dict[str, float]


@dataclass(frozen=True)
class Request:
    """What to predict; paths are absolute, and every machine that works on it sees them.

    Args:
        model: folder of the model.
        text_field: the column that holds the texts.
    """

    model: str
    source: str
    out: str
    text_field: str
    batch_rows: int


@dataclass(frozen=True)
class Summary:
    """What was predicted.

    Args:
        nulls: rows without a text, which have no prediction either.
        classes: how many rows each class got, the largest first.
    """

    rows: int
    nulls: int
    classes: dict[str, int]


@dataclass(frozen=True)
class Piece:
    """Texts to classify.

    Args:
        first_row: the number of the first one in the table, from 1.
    """

    model: str
    texts: list[Any]
    first_row: int


Answers = list[Probabilities | None]
MapInOrder = Callable[[Callable[[Piece], Answers], Iterable[Piece]], Iterable[Answers]]
"""Gives the result of each piece in the order of the pieces, and takes few ahead."""


def predict(request: Request, map_in_order: MapInOrder, report: Callable[[int], None]) -> Summary:
    """Write the table of predictions, whole or not at all.

    Args:
        report: told after each batch how many rows are written.

    Raises:
        ConfigError: the model has no classifier, the table not that column, or columns of the names that are added.
        DataError: the file is no table, or a text no text.
    """
    model = _model(request.model)
    if model.classes is None:
        raise ConfigError("this model has no classifier", fix="publish one from a recipe with labels")
    if TEXT not in model.inputs:
        raise ConfigError(
            f"this model reads {', '.join(model.inputs)}, and a table of texts cannot hold that",
            fix="load it with mlflow.pyfunc and call predict, as its card says",
        )
    classes = model.classes
    added = {PREDICTION: pa.string(), **{PROBABILITY + name: pa.float64() for name in classes}}
    waiting: deque[list[Row]] = deque()
    rows, counts = 0, Counter[str | None]()
    with read_table(Path(request.source), request.batch_rows) as table:
        table.require(request.text_field, Path(request.source))

        def pieces() -> Iterator[Piece]:
            first_row = 1
            for batch in table.batches:
                waiting.append(batch)
                yield Piece(request.model, [row.get(request.text_field) for row in batch], first_row)
                first_row += len(batch)

        with write_table(Path(request.out), table, added) as writer:
            for answers in map_in_order(predict_texts, pieces()):
                predicted = [_columns(answer, classes) for answer in answers]
                writer.write([{**row, **new} for row, new in zip(waiting.popleft(), predicted, strict=True)])
                counts.update(new[PREDICTION] for new in predicted)
                rows += len(predicted)
                report(rows)
    nulls = counts.pop(None, 0)
    return Summary(rows, nulls, {str(name): count for name, count in counts.most_common()})


def predict_texts(piece: Piece) -> Answers:
    """The probability of each class for each text; None for none."""
    model = _model(piece.model)
    with one_thread():
        return [_answer(model, text, row) for row, text in enumerate(piece.texts, piece.first_row)]


def predict_on_ray(request: Request, settings: Settings, folder: Path, report: Callable[[int], None]) -> Summary:
    """The same as one Ray job, on the cluster that is configured or on one of this machine alone.

    Args:
        folder: an empty folder that every machine of the cluster sees.

    Raises:
        FoundationError: what `predict` raises there.
        TransientError: the job died.
    """
    from cluster.embedded import RayHead

    def told(event: Event) -> None:
        if event["kind"] == "progress":
            report(event["done"])

    key = {"digest": secrets.token_hex(16), "parts": {}}
    job = Job("predict", asdict(request), {}, str(folder), key, module="cluster.predict_job")
    head = None if settings.ray_dashboard else RayHead(settings)
    try:
        if head is not None:
            head.wait()
            os.environ.update(head.environment)
        follow(RayLauncher(head.address if head else settings.ray_dashboard), job, told)
    finally:
        if head is not None:
            head.end()
    return Summary(**read_json(folder / SUMMARY_FILE))


@cache
def _model(folder: str) -> ServedModel:
    return load_served_model(Path(folder))


def _answer(model: ServedModel, text: Any, row: int) -> Probabilities | None:
    if text is None:
        return None
    try:
        if not isinstance(text, str):
            raise ValueError(f"{type(text).__name__} {text!r}")
        return model.class_probabilities(text)
    except ValueError as error:
        raise DataError(f"row {row} has no text in it: {error}", fix="correct or remove that row") from error


def _columns(answer: Probabilities | None, classes: list[str]) -> Row:
    if answer is None:
        return {PREDICTION: None, **{PROBABILITY + name: None for name in classes}}
    best = max(answer, key=lambda name: answer[name])
    return {PREDICTION: best, **{PROBABILITY + name: answer[name] for name in classes}}

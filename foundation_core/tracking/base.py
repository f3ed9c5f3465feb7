"""The Tracker: five methods that every stage may call, and the table of metric names.

A job's tracker is an `EventTracker`: it writes to the event log and knows no server. The launcher replays those lines
into MLflow, so training never waits for a server and no rank imports one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from foundation_core.errors import ConfigError
from foundation_core.events import EventLog
from foundation_core.failures import told


class Metric(NamedTuple):
    """Unit and meaning of a metric."""

    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    "ingest/documents_in": Metric("documents", "read from the source"),
    "ingest/documents_kept": Metric("documents", "written to the corpus"),
    "ingest/documents_dropped": Metric("documents", "dropped by a filter or as a duplicate"),
    "ingest/documents_quarantined": Metric("documents", "not readable"),
    "ingest/bytes": Metric("bytes", "texts and values of the kept documents"),
    "ingest/tokens": Metric("tokens", "tokens of the kept texts and captions"),
    "ingest/bytes_per_token": Metric("bytes/token", "compression by the tokenizer"),
    "ingest/seconds_listing": Metric("seconds", "of all processes: files listed and hashed, evaluation sets"),
    "ingest/seconds_reading": Metric("seconds", "of all processes: files read, texts taken out of them"),
    "ingest/seconds_language": Metric("seconds", "of all processes: languages found"),
    "ingest/seconds_cleaning": Metric("seconds", "of all processes: steps that change texts"),
    "ingest/seconds_rules": Metric("seconds", "of all processes: rules and filters"),
    "ingest/seconds_signatures": Metric("seconds", "of all processes: sketches for near copies"),
    "ingest/seconds_deduplication": Metric("seconds", "of all processes: copies looked for"),
    "ingest/seconds_tokenizer": Metric("seconds", "of all processes: the tokenizer trained"),
    "ingest/seconds_encoding": Metric("seconds", "of all processes: texts made tokens"),
    "ingest/seconds_writing": Metric("seconds", "of all processes: units and shards written"),
    "train/loss_nats": Metric("nats/token", "training loss, mean over the labels of the step"),
    "train/loss_squares": Metric("squared deviations", "the same, of hidden patches normalised one by one"),
    "train/loss_pairs": Metric("nats/pair", "the same, of telling which text and which picture belong together"),
    "train/lr": Metric("1", "learning rate of the step"),
    "train/grad_norm": Metric("1", "global gradient norm before clipping"),
    "train/tokens": Metric("tokens", "labels trained on since the start of the run"),
    "train/tokens_per_second": Metric("tokens/s", "labels a second, over all workers"),
    "train/step_seconds": Metric("seconds", "of the step, waiting for its batch included"),
    "train/model_flops_utilisation": Metric("fraction", "model FLOPs over those of a timed matrix product"),
    "validation/loss_nats": Metric("nats/token", "loss on the fixed validation rows"),
    "validation/loss_squares": Metric("squared deviations", "the same, of hidden patches normalised one by one"),
    "validation/loss_pairs": Metric("nats/pair", "the same, of telling which text and which picture belong together"),
    "validation/bits_per_byte": Metric("bits/byte", "the same, independent of the tokenizer"),
    "validation/seconds": Metric("seconds", "of the validation, keeping the best weights included"),
    "checkpoint/stall_seconds": Metric("seconds", "that the training waited for a save"),
    "test/loss_nats": Metric("nats/token", "loss on the test rows"),
    "test/loss_squares": Metric("squared deviations", "the same, of hidden patches normalised one by one"),
    "test/loss_pairs": Metric("nats/pair", "the same, of telling which text and which picture belong together"),
    "test/bits_per_byte": Metric("bits/byte", "the same, independent of the tokenizer"),
    "test/perplexity": Metric("1", "exp of the loss per token"),
    "test/zero_shot_templates": Metric("fraction", "test samples named by the nearest of captions made from templates"),
    "test/zero_shot_training_captions": Metric("fraction", "the same by the captions of training"),
    "test/caption_of_sample_at_1": Metric("fraction", "test samples whose nearest caption is theirs"),
    "test/caption_of_sample_at_5": Metric("fraction", "test samples that find their caption among the nearest five"),
    "test/sample_of_caption_at_1": Metric("fraction", "test captions whose nearest sample is theirs"),
    "test/sample_of_caption_at_5": Metric("fraction", "test captions that find a sample of theirs among five"),
    "samples/parsed_fraction": Metric("fraction", "generated samples that ast.parse accepts"),
    "samples/tokens_per_second": Metric("tokens/s", "generation speed"),
    "speed/rows_per_second": Metric("rows/s", "training speed, median over the steps"),
    "speed/tokens_per_second": Metric("tokens/s", "training speed, median over the steps"),
    "speed/matmul_flops_per_second": Metric("FLOP/s", "a 2048-square product in the training precision, best of 5"),
    "speed/model_flops_utilisation": Metric("fraction", "model FLOPs of training over those of the product"),
    "goodput/fraction": Metric("fraction", "seconds of steps, each counted once, over the wall time of all attempts"),
    "goodput/wall_seconds": Metric("seconds", "from the first start to the end, pauses between attempts included"),
    "goodput/useful_seconds": Metric("seconds", "of steps, each counted once, by its last time"),
    "goodput/repeated_seconds": Metric("seconds", "of steps that were done again later"),
    "goodput/start_seconds": Metric("seconds", "from launches and attempts to their first step"),
    "goodput/validation_seconds": Metric("seconds", "of validations"),
    "goodput/save_seconds": Metric("seconds", "that the training waited for saves"),
    "goodput/failure_seconds": Metric("seconds", "from the last sign of an attempt that failed to the next one"),
    "goodput/away_seconds": Metric("seconds", "in which nobody was at work"),
    "goodput/other_seconds": Metric("seconds", "between steps, and after the last one"),
    "goodput/repeated_steps": Metric("steps", "done again, as often as they were"),
    "goodput/repeated_tokens": Metric("tokens", "trained on again: labels of the steps done again"),
    "goodput/restarts": Metric("starts", "launches and attempts but the first"),
    "energy/joules": Metric("J", "taken from the grid over all attempts, measured or estimated"),
    "energy/kilowatt_hours": Metric("kWh", "the same"),
    "energy/joules_per_million_tokens": Metric("J/1e6 tokens", "the same over the tokens learned from, each once"),
    "energy/estimated_fraction": Metric(
        "fraction", "of it that the machine did not measure: stated watts times seconds"
    ),
    "stage/seconds": Metric("seconds", "the stage's own work"),
}
"""Every metric that this project logs."""

PREFIXES: dict[str, Metric] = {
    "task/": Metric("mixed", "a score of a task model: task/<arm>/<score>"),
    "system/": Metric("mixed", "what the machine was doing: system/<reading>_<unit>"),
    "failures/": Metric("failures", "how often training met a class of failures: failures/<class>"),
    "recovery/": Metric("seconds", "from a failure to the next step: recovery/<class>_seconds"),
}
"""Families of metrics whose last part is found at run time."""


class Figure(NamedTuple):
    """A score as it is told: 1.827 bits/byte."""

    name: str
    value: float
    unit: str


def leading(scores: Mapping[str, float]) -> Figure:
    """Of the scores of one validation that which is told first: bits per byte where there are some, else the loss.

    Args:
        scores: by the last part of their metric's name.
    """
    name = "bits_per_byte" if "bits_per_byte" in scores else next(iter(scores))
    return Figure(name, scores[name], METRICS[f"validation/{name}"].unit)


def check_metrics(values: Mapping[str, float]) -> None:
    """Refuse unknown names and values that are not finite numbers.

    Raises:
        ConfigError: a name is not in the table.
    """
    for name, value in values.items():
        if name not in METRICS and not name.startswith(tuple(PREFIXES)):
            raise ConfigError(f"unknown metric {name!r}", fix="add it, with unit and meaning, to tracking/base.py")
        if not math.isfinite(value):
            raise ConfigError(f"metric {name!r} is {value}", allowed="finite numbers")


class Tracker(Protocol):
    """Where a stage reports."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log settings, once."""

    def metrics(self, values: Mapping[str, float], step: int | None = None, at: float | None = None) -> None:
        """Log figures, at a step or as final ones.

        Args:
            at: when they were measured, in seconds since the epoch; now, if not said.
        """

    def dataset(self, name: str, facts: Mapping[str, Any]) -> None:
        """Log an input data set: digest, rows, tokens, source."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a file."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Log what ties this run to others."""


class NullTracker:
    """Accepts everything and keeps nothing: what ranks other than 0 hold."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Drop."""

    def metrics(self, values: Mapping[str, float], step: int | None = None, at: float | None = None) -> None:
        """Drop."""

    def dataset(self, name: str, facts: Mapping[str, Any]) -> None:
        """Drop."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Drop."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Drop."""


class EventTracker:
    """Writes to the event log of the stage; the launcher replays it into the real tracker."""

    def __init__(self, events: EventLog) -> None:
        self.events = events

    def params(self, values: Mapping[str, Any]) -> None:
        """Append the settings."""
        self.events.write("params", values=dict(values))

    def metrics(self, values: Mapping[str, float], step: int | None = None, at: float | None = None) -> None:
        """Append the figures; unknown names are refused here, where the mistake is."""
        check_metrics(values)
        when = {} if at is None else {"time": at}
        self.events.write("metrics", values=dict(values), step=step, **when)

    def dataset(self, name: str, facts: Mapping[str, Any]) -> None:
        """Append the data set."""
        self.events.write("dataset", name=name, facts=dict(facts))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Append the file's path."""
        self.events.write("artifact", path=str(path), folder=folder)

    def tags(self, values: Mapping[str, str]) -> None:
        """Append the tags."""
        self.events.write("tags", values=dict(values))


class FailureTally:
    """Shows the failures of one event log on a tracker: a count and the last words of each class."""

    def __init__(self) -> None:
        self._met: dict[str, set[str]] = {}

    def apply(self, event: Mapping[str, Any], tracker: Tracker) -> None:
        """Count one event, if it is of a failure or a recovery; one that is applied again is counted once."""
        if event["kind"] not in ("failure", "recovered"):
            return
        name, tag = event["failure"], f"{event['kind']}.{event['failure']}"
        tracker.tags({tag: told(event)})
        met = self._met.setdefault(tag, set())
        met.add(json.dumps(event, sort_keys=True))
        count = len(met)
        if event["kind"] == "failure":
            tracker.metrics({f"failures/{name}": count}, count, event["time"])
        else:
            tracker.metrics({f"recovery/{name}_seconds": event["seconds"]}, count, event["time"])


def replay(event: Mapping[str, Any], tracker: Tracker) -> None:
    """Apply one event of the log to a tracker; events that are not a tracker's are passed over."""
    kind = event["kind"]
    if kind == "params":
        tracker.params(event["values"])
    elif kind == "metrics":
        tracker.metrics(event["values"], event["step"], event["time"])
    elif kind == "dataset":
        tracker.dataset(event["name"], event["facts"])
    elif kind == "artifact":
        tracker.artifact(Path(event["path"]), event["folder"])
    elif kind == "tags":
        tracker.tags(event["values"])

"""What is found by name: metrics with their units, plugins, and errors that cross process borders."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation_core import errors, plugins
from foundation_core.errors import ConfigError, FoundationError, SetupError, as_foundation_error
from foundation_core.events import EventLog, read_events
from foundation_core.tracking.base import METRICS, PREFIXES, EventTracker, NullTracker, replay


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train/los_nats": 1.0}, "unknown metric 'train/los_nats'"),
        ({"train/lr": float("nan")}, "'train/lr' is nan"),
        ({"task/arm/macro_f1": float("inf")}, "'task/arm/macro_f1' is inf"),
        ({"train/lr": 1.0, "loss": 1.0}, "unknown metric 'loss'"),
    ],
)
def test_a_tracker_refuses_unknown_names_and_numbers_that_are_not_finite(
    tmp_path: Path, values: dict[str, float], message: str
) -> None:
    tracker = EventTracker(EventLog(tmp_path))
    with pytest.raises(ConfigError, match=message):
        tracker.metrics(values, step=1)
    assert list(read_events(tmp_path)) == []


def test_what_a_job_logged_is_replayed_to_the_launchers_tracker_as_it_was(tmp_path: Path) -> None:
    here, there = EventTracker(EventLog(tmp_path / "here")), EventTracker(EventLog(tmp_path / "there"))
    here.params({"lr": 0.1})
    here.metrics({"train/lr": 0.1, "task/arm/f1": 0.5}, step=3)
    here.metrics({"stage/seconds": 1.0})
    here.dataset("corpus", {"digest": "d"})
    here.artifact(tmp_path / "card.md", "cards")
    here.tags({"a": "b"})
    here.events.say("this is for people")
    for _, event in read_events(tmp_path / "here"):
        replay(event, there)
    logged = [event for _, event in read_events(tmp_path / "here")][:-1]
    found = [event for _, event in read_events(tmp_path / "there")]
    assert [{**event, "time": 0} for event in found] == [{**event, "time": 0} for event in logged]
    measured = [event["time"] for event in logged if event["kind"] == "metrics"]
    assert [event["time"] for event in found if event["kind"] == "metrics"] == measured, "figures keep their time"


def test_every_metric_has_a_unit_and_a_meaning() -> None:
    assert [name for name, metric in {**METRICS, **PREFIXES}.items() if not (metric.unit and metric.meaning)] == []


def test_a_null_tracker_takes_what_a_job_would_be_refused(tmp_path: Path) -> None:
    refused = {"anything": float("nan")}
    with pytest.raises(ConfigError):
        EventTracker(EventLog(tmp_path)).metrics(refused)
    NullTracker().metrics(refused)
    assert list(read_events(tmp_path)) == []


def test_an_unknown_plugin_is_answered_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no family is called 'perceiver'") as caught:
        plugins.find("families", "perceiver")
    assert caught.value.allowed == ", ".join(plugins.names("families"))
    assert "encoder_decoder" in caught.value.allowed
    assert "foundation.families" in caught.value.fix


@pytest.mark.parametrize("group", ["sources", "measures", "families", "objectives", "tasks"])
def test_every_registered_name_can_be_loaded(group: str) -> None:
    assert plugins.names(group)
    assert all(callable(plugins.find(group, name)) for name in plugins.names(group))


def _kinds() -> list[type[FoundationError]]:
    return [FoundationError, *FoundationError.__subclasses__()]


@pytest.mark.parametrize("kind", _kinds())
def test_an_error_crosses_a_process_border_as_the_same_class_and_words(kind: type[FoundationError]) -> None:
    error = kind("found", allowed="allowed", fix="fix")
    back = FoundationError.from_json(error.to_json())
    assert type(back) is kind
    assert str(back) == str(error) == "found\n  Allowed: allowed\n  To do: fix"


def test_an_error_of_a_class_that_nobody_knows_is_still_read() -> None:
    assert str(FoundationError.from_json({"kind": "FromTheFuture", "found": "found"})) == "found"


def test_a_mistake_of_a_person_exits_2_and_a_stop_130() -> None:
    status = {kind.__name__: kind.exit_code for kind in _kinds()}
    assert {name for name, code in status.items() if code == 2} == {
        "ConfigError", "DataError", "CheckpointError", "SetupError",
    }  # fmt: skip
    assert status["Stopped"] == 130
    assert {kind for kind in _kinds() if kind.retryable} == {errors.TransientError, errors.Stopped}


def test_a_fault_of_ours_becomes_a_message_with_its_place() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    told = as_foundation_error(caught.value)
    assert "ZeroDivisionError: division by zero" in told.found
    assert f"{Path(__file__).name}:" in told.found
    assert as_foundation_error(told) is told


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    plugins.need("vision", "json")
    with pytest.raises(SetupError, match="no_such_module is not installed") as refused:
        plugins.need("vision", "json", "no_such_module")
    assert "foundation-pipeline[vision]" in str(refused.value)

"""The event log: what a job says is read whole, once and in order, whatever happened to its writer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foundation_core.events import TAIL_BYTES, EventLog, SilentLog, last_event, read_events

WRITES_MANY = """
import sys
from pathlib import Path
from foundation_core.events import EventLog
log = EventLog(Path(sys.argv[1]))
for number in range(500):
    log.write("count", writer=sys.argv[2], number=number, padding="x" * 300)
"""


def _kinds(folder: Path, offset: int = 0) -> list[str]:
    return [event["kind"] for _, event in read_events(folder, offset)]


def test_events_come_back_in_order_with_their_fields(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "new")
    log.phase("read")
    log.progress(1, 2, "units", "half")
    log.say("ñ")
    events = [event for _, event in read_events(tmp_path / "new")]
    assert [{name: value for name, value in event.items() if name != "time"} for event in events] == [
        {"kind": "phase", "name": "read"},
        {"kind": "progress", "done": 1, "total": 2, "unit": "units", "note": "half"},
        {"kind": "say", "text": "ñ"},
    ]


def test_reading_goes_on_behind_an_offset(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("first")
    ((offset, _),) = read_events(tmp_path)
    log.write("second")
    assert _kinds(tmp_path, offset) == ["second"]


def test_a_folder_without_a_log_has_no_events(tmp_path: Path) -> None:
    assert _kinds(tmp_path) == []


def test_a_half_written_line_waits_until_it_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("first")
    line = json.dumps({"time": 0, "kind": "second"}) + "\n"
    with open(log.path, "a") as sink:
        sink.write(line[:9])
    assert _kinds(tmp_path) == ["first"]
    with open(log.path, "a") as sink:
        sink.write(line[9:])
    assert _kinds(tmp_path) == ["first", "second"]


def test_a_line_that_its_writer_could_not_finish_does_not_hide_the_next_writers_events(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("first")
    with open(log.path, "a") as sink:
        sink.write('{"time": 0, "ki')
    EventLog(tmp_path).write("start")
    assert _kinds(tmp_path) == ["first", "start"]


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITES_MANY, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    events = [event for _, event in read_events(tmp_path)]
    for name in "ab":
        assert [event["number"] for event in events if event["writer"] == name] == list(range(500))


def test_a_silent_log_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SilentLog().say("nobody hears this")
    assert list(tmp_path.iterdir()) == []


def test_the_last_event_is_the_last_that_is_read_however_long_the_log(tmp_path: Path) -> None:
    assert last_event(tmp_path) == {}
    log = EventLog(tmp_path)
    log.phase("read")
    for padding in (0, TAIL_BYTES - 40, TAIL_BYTES, 5 * TAIL_BYTES):
        log.write("long", padding="x" * padding)
        with open(log.path, "ab") as raw:
            raw.write(b"never an event\n[1]\n" + b'{"kind": "half')
        assert last_event(tmp_path) == list(read_events(tmp_path))[-1][1]
        assert len(last_event(tmp_path)["padding"]) == padding
        EventLog(tmp_path)  # a new writer ends the half line

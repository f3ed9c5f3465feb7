"""What the machine is doing: samples while a stage runs, as metrics of its event log; the memory of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from foundation_core.events import read_events
from foundation_core.tracking.base import Tracker

SAMPLE_SECONDS = 5.0


@contextmanager
def system_metrics(tracker: Tracker, folder: Path) -> Iterator[None]:
    """Log CPU, memory, disk and network of this machine every few seconds while the block runs.

    The step of a sample is the seconds since the first event of the log, so that a stage which goes on after an
    interruption goes on with its own steps too.
    """
    first = next((event["time"] for _, event in read_events(folder)), time.time())
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(tracker, folder, first, done), daemon=True, name="system-metrics")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def pss_bytes(process: psutil.Process) -> int:
    """A process's memory, what it shares counted by its share; 0 for one that is gone or another user's."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _sample(tracker: Tracker, folder: Path, first: float, done: threading.Event) -> None:
    psutil.cpu_percent()  # the first call has nothing to compare with
    network = psutil.net_io_counters()
    while not done.wait(SAMPLE_SECONDS):
        memory = psutil.virtual_memory()
        tracker.metrics(
            {
                "system/cpu_utilization_percentage": psutil.cpu_percent(),
                "system/system_memory_usage_megabytes": memory.used / 1e6,
                "system/system_memory_usage_percentage": memory.percent,
                "system/disk_usage_percentage": psutil.disk_usage(str(folder)).percent,
                "system/network_transmit_megabytes": (psutil.net_io_counters().bytes_sent - network.bytes_sent) / 1e6,
            },
            step=int(time.time() - first),
        )

"""What a training took from the grid: measured where the machine says it, else estimated and marked so.

    RAPL counters of the packages (one rank a machine) or CPU seconds x watts (every rank)  \\
    NVML counter of this rank's card, or seconds x watts                                     } events `energy` -> sum
                                                                                            /
RAPL: Linux, /sys/class/powercap; it counts the whole package, other programs included, and often only root may read it.
NVML: total energy of a card since its driver was loaded, Volta and later. The estimate of 3.5 W a busy thread is what
Cloud Carbon Footprint takes for AWS at full load (cloudcarbonfootprint.org/docs/methodology). Memory, disks, network,
idle time and cooling are in no estimate.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from foundation_core.events import EventLog, read_events
from foundation_core.specs.watch import WatchSpec

POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6
_TELL_SECONDS = 30.0
"""Between two events: the most that a killed rank leaves out. With more ranks than this, a second for each."""


class Meter(Protocol):
    """One thing that takes energy."""

    part: str
    """cpu, or card."""
    measured: bool
    """Whether the machine says it; if not, it is an estimate."""

    def joules(self) -> float:
        """Since the last call."""


class Packages:
    """The CPU packages, and their memory where it has a counter of its own, by RAPL."""

    part, measured = "cpu", True

    def __init__(self, folder: Path) -> None:
        zones = sorted(path for path in folder.glob("intel-rapl:*") if _is_counted(path))
        self._zones = {path: (int((path / "max_energy_range_uj").read_text()), _microjoules(path)) for path in zones}

    @staticmethod
    def readable(folder: Path) -> bool:
        """Whether this machine says what its packages take, and to us."""
        try:
            return bool(Packages(folder)._zones)
        except OSError:
            return False

    def joules(self) -> float:
        """Since the last call; a counter that began anew in between is seen through, once."""
        total = 0
        for path, (size, before) in self._zones.items():
            now = _microjoules(path)
            total += (now - before) % size if now < before else now - before
            self._zones[path] = (size, now)
        return total / 1e6


def _is_counted(zone: Path) -> bool:
    """A package, or memory, which the package's counter leaves out; cores are in their package's."""
    return (zone / "name").read_text().strip().startswith(("package", "dram"))


def _microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text())


class Card:
    """One NVIDIA card by NVML.

    Args:
        nvml: the module pynvml, initialised.
        uuid: of the card; its number is another one where CUDA_VISIBLE_DEVICES is set.
    """

    part, measured = "card", True

    def __init__(self, nvml: Any, uuid: str) -> None:
        self._nvml, self._handle = nvml, nvml.nvmlDeviceGetHandleByUUID(uuid)
        self._before = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)

    def joules(self) -> float:
        """Since the last call."""
        before, self._before = self._before, self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        return float(self._before - before) / 1e3  # NVML counts millijoules


class BusyThreads:
    """An estimate: the CPU seconds of this process, at so many watts."""

    part, measured = "cpu", False

    def __init__(self, watts: float) -> None:
        self._watts, self._before = watts, time.process_time()

    def joules(self) -> float:
        """Since the last call."""
        before, self._before = self._before, time.process_time()
        return (self._before - before) * self._watts


class BusyCard:
    """An estimate: the seconds that a card was ours, at so many watts."""

    part, measured = "card", False

    def __init__(self, watts: float) -> None:
        self._watts, self._before = watts, time.monotonic()

    def joules(self) -> float:
        """Since the last call."""
        before, self._before = self._before, time.monotonic()
        return (self._before - before) * self._watts


def meters(spec: WatchSpec, device: torch.device, *, first_of_machine: bool) -> list[Meter]:
    """The meters of one rank.

    Args:
        first_of_machine: whether this rank measures what is the machine's and no rank's.
    """
    found: list[Meter] = []
    if not Packages.readable(POWERCAP):
        found.append(BusyThreads(spec.cpu_watts))
    elif first_of_machine:
        found.append(Packages(POWERCAP))
    if device.type == "cuda":
        found.append(_card(device.index or 0) or BusyCard(spec.card_watts))
    return found


def _card(index: int) -> Card | None:
    """The card by NVML, if its bindings (nvidia-ml-py) are installed and it counts."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return Card(nvml, f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    except Exception:  # NVML's errors are of a module that may be absent; any of them means that nothing is measured
        return None


class EnergyLog:
    """Writes what one rank's meters say into the event log while the block runs."""

    def __init__(self, folder: Path, rank: int, world: int, of: Sequence[Meter]) -> None:
        self._events, self._rank, self._meters = EventLog(folder), rank, of
        self._every = max(_TELL_SECONDS, float(world))
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._tell_now_and_then, daemon=True, name="energy")

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Say what is left to say."""
        self._left.set()
        self._thread.join()
        self.tell()

    def tell(self) -> None:
        """One event for each meter, with the joules since the one before."""
        for meter in self._meters:
            joules = round(meter.joules(), 3)
            self._events.write("energy", rank=self._rank, part=meter.part, measured=meter.measured, joules=joules)

    def _tell_now_and_then(self) -> None:
        while not self._left.wait(self._every):
            self.tell()


@dataclass(frozen=True)
class Energy:
    """What a training took, over all attempts and ranks.

    Args:
        measured_joules, estimated_joules: by who said it.
    """

    measured_joules: float = 0.0
    estimated_joules: float = 0.0

    @property
    def joules(self) -> float:
        """In all."""
        return self.measured_joules + self.estimated_joules

    @property
    def source(self) -> str:
        """measured, estimated, or `partly estimated`."""
        if not self.estimated_joules:
            return "measured"
        return "partly estimated" if self.measured_joules else "estimated"

    def per_million_tokens(self, tokens: int) -> float:
        """Joules; tokens count once, so that what was trained twice makes the others dearer."""
        return self.joules / tokens * 1e6 if tokens else 0.0

    def metrics(self, tokens: int) -> dict[str, float]:
        """As final figures of a run that learned from so many tokens."""
        return {
            "energy/joules": self.joules,
            "energy/kilowatt_hours": self.joules / JOULES_PER_KWH,
            "energy/estimated_fraction": self.estimated_joules / self.joules if self.joules else 0.0,
            "energy/joules_per_million_tokens": self.per_million_tokens(tokens),
        }

    def to_json(self, tokens: int) -> dict[str, Any]:
        """As part of the stage's summary."""
        return {
            "joules": self.joules,
            "kilowatt_hours": self.joules / JOULES_PER_KWH,
            "joules_per_million_tokens": self.per_million_tokens(tokens),
            "source": self.source,
        }

    def sentence(self, tokens: int) -> str:
        """For people."""
        kwh = self.joules / JOULES_PER_KWH
        amount = f"{kwh:,.2f} kWh" if kwh >= 1 else f"{self.joules:,.0f} J"
        return f"energy {amount}, {self.per_million_tokens(tokens):,.0f} J per million tokens ({self.source})"


def energy(folder: Path) -> Energy:
    """The sum of what the ranks of a stage's folder said up to now."""
    joules = {True: 0.0, False: 0.0}
    for _, event in read_events(folder):
        if event["kind"] == "energy":
            joules[event["measured"]] += event["joules"]
    return Energy(joules[True], joules[False])

"""Energy is what the machine's counters say, over their end too; without counters it is an estimate that says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from foundation_core.events import EventLog
from foundation_core.specs.watch import WatchSpec
from foundation_core.train import energy as module
from foundation_core.train.energy import BusyThreads, Card, Energy, EnergyLog, Packages, energy, meters

RANGE = 1_000_000_000


class Sysfs:
    """A folder as the kernel's powercap makes it: two packages, their cores, and the memory of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
        for zone, name in {**names, "intel-rapl:1": "package-1", "intel-rapl-mmio:0": "package-0"}.items():
            (folder / zone).mkdir(parents=True)
            (folder / zone / "name").write_text(f"{name}\n")
            (folder / zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            self.count(zone, 0)

    def count(self, zone: str, microjoules: int) -> None:
        """Let a counter stand somewhere."""
        (self.folder / zone / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "powercap")


def test_packages_and_memory_are_added_and_cores_are_in_their_package(sysfs: Sysfs) -> None:
    packages = Packages(sysfs.folder)
    for zone, microjoules in {"intel-rapl:0": 5, "intel-rapl:0:0": 100, "intel-rapl:0:1": 2, "intel-rapl:1": 3}.items():
        sysfs.count(zone, microjoules * 1_000_000)
    assert packages.joules() == pytest.approx(10.0)
    assert packages.joules() == 0.0


def test_a_counter_that_began_anew_went_on(sysfs: Sysfs) -> None:
    sysfs.count("intel-rapl:1", RANGE - 2_000_000)
    packages = Packages(sysfs.folder)
    sysfs.count("intel-rapl:1", 1_000_000)
    assert packages.joules() == pytest.approx(3.0)


def test_a_machine_without_counters_or_that_hides_them_says_nothing(sysfs: Sysfs, tmp_path: Path) -> None:
    assert Packages.readable(sysfs.folder)
    assert not Packages.readable(tmp_path / "nowhere")
    (sysfs.folder / "intel-rapl:0" / "energy_uj").unlink()
    assert not Packages.readable(sysfs.folder)


def test_the_machine_is_measured_once_and_threads_are_estimated_by_each_rank(
    sysfs: Sysfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, spec = torch.device("cpu"), WatchSpec()
    monkeypatch.setattr(module, "POWERCAP", sysfs.folder)
    assert [meter.measured for meter in meters(spec, cpu, first_of_machine=True)] == [True]
    assert meters(spec, cpu, first_of_machine=False) == []
    monkeypatch.setattr(module, "POWERCAP", tmp_path / "nowhere")
    for first in (True, False):
        assert [meter.measured for meter in meters(spec, cpu, first_of_machine=first)] == [False]


def test_an_estimate_is_cpu_seconds_times_watts() -> None:
    one, ten = BusyThreads(1.0), BusyThreads(10.0)
    before = os.times()
    sum(range(2_000_000))
    small, large = one.joules(), ten.joules()
    assert small > 0
    assert large == pytest.approx(10 * small, rel=0.2)
    assert large <= 10 * (sum(os.times()[:2]) - sum(before[:2]) + 0.02)


class NVML:
    """What pynvml has of a card; there is none on the machines that run the tests."""

    millijoules = 7_000

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.millijoules


def test_a_cards_counter_is_in_millijoules_and_older_than_the_training() -> None:
    nvml = NVML()
    card = Card(nvml, "GPU-1")
    nvml.millijoules += 2_500
    assert card.joules() == pytest.approx(2.5)


class Fixed:
    """A meter of which each look gives the same."""

    part = "cpu"

    def __init__(self, joules: float, measured: bool) -> None:
        self._joules, self.measured = joules, measured

    def joules(self) -> float:
        return self._joules


def test_the_sum_is_over_ranks_and_attempts_and_says_what_was_estimated(tmp_path: Path) -> None:
    EventLog(tmp_path).say("a training")
    assert energy(tmp_path) == Energy()
    for rank, measured in [(0, False), (1, False), (0, False)]:
        with EnergyLog(tmp_path, rank, 2, [Fixed(5.0, measured)]):
            pass
    assert energy(tmp_path) == Energy(0.0, 15.0)
    assert energy(tmp_path).source == "estimated"
    with EnergyLog(tmp_path, 0, 2, [Fixed(45.0, True)]):
        pass
    found = energy(tmp_path)
    assert (found.joules, found.source) == (60.0, "partly estimated")
    assert found.metrics(500_000)["energy/joules_per_million_tokens"] == pytest.approx(120.0)
    assert found.metrics(500_000)["energy/kilowatt_hours"] == pytest.approx(60.0 / 3.6e6)
    assert found.metrics(500_000)["energy/estimated_fraction"] == pytest.approx(0.25)
    assert found.metrics(0)["energy/joules_per_million_tokens"] == 0.0

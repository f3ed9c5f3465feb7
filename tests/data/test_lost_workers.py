"""Processes of the product's own pool are killed in the middle of an ingestion: what comes out does not show it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.losses import MOST_TRIES
from cluster.pools import ProcessPool
from foundation_core.data.sources import digests as digests_of_files
from foundation_core.errors import DataError
from foundation_core.specs import IngestSpec, SourceSpec, TokenizerSpec
from foundation_core.stages import ingest_digests
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import StageResult
from tests.support.ingestion import Dying, LossyPool, finished_units

Build = Callable[..., Context]
BuildSpec = Callable[..., IngestSpec]
Digests = Callable[[Path], dict[str, str]]

pytestmark = pytest.mark.timeout(600)  # some twenty processes start, one after the other

ROOT = Path(__file__).parents[2]
NOBODY = 10**9
"""One unit of so many is a victim."""
# Ingests with a pool of the product, and notes each unit that is begun; prints what the pool says.
_DRIVER = """
import sys
from dataclasses import replace
from pathlib import Path
from cluster.pools import ProcessPool, RayPool
from foundation_core.alone import alone
from foundation_core.specs import IngestSpec
from foundation_core.stages.ingest import ingest
from tests.support.ingestion import Dying, LossyPool

spec, folder, notes = IngestSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
every, on_ray = int(sys.argv[4]), "ray" in sys.argv
if on_ray:
    import ray
    variables = {"PYTHONPATH": sys.argv[6]}
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", runtime_env={"env_vars": variables})
pool = RayPool(print) if on_ray else ProcessPool(print)
ingest(spec, {}, replace(alone(folder), pool=LossyPool(pool, Dying(None, notes, every=every))))
"""


@pytest.fixture(scope="module")
def spec(corpus: Path, little_spec: BuildSpec) -> IngestSpec:
    """Of some twenty files, in about as many units."""
    source = SourceSpec(kind="folder", path=str(corpus), pattern="[hju]*/*.py")
    return little_spec(source=source, unit_bytes=4096, tokenizer=TokenizerSpec(vocabulary=300))


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, serial_context: Build, spec: IngestSpec
) -> tuple[Path, StageResult]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, ingest(spec, {}, serial_context(folder))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def test_killed_workers_cost_the_units_in_hand_and_change_no_byte(
    undisturbed: tuple[Path, StageResult], tmp_path: Path, notes: Path, serial_context: Build, spec: IngestSpec,
    digests: Digests,
) -> None:  # fmt: skip
    said, dying = list[str](), Dying(None, notes, every=3)
    pool = serial_context(tmp_path / "again", pool=LossyPool(ProcessPool(said.append), dying))
    result = ingest(spec.model_copy(update={"workers": 3}), {}, pool)
    begun = dying.begun()
    victims = [identity for identity in begun if dying.is_victim(identity)]
    assert len(victims) > 2
    assert begun == {identity: 1 + (identity in victims) for identity in begun}, "others than those in hand were redone"
    assert len(said) == len(victims)
    assert all("was ended by SIGKILL; what it had in hand is done again: " in text for text in said)
    assert digests(tmp_path / "again") == digests(undisturbed[0])
    assert result.outputs == undisturbed[1].outputs


def test_a_unit_that_no_process_survives_is_named_and_what_is_finished_is_not_done_again(
    undisturbed: tuple[Path, StageResult], tmp_path: Path, notes: Path, serial_context: Build, spec: IngestSpec,
    digests: Digests,
) -> None:  # fmt: skip
    dying, folder = Dying(None, notes, signal.SIGSEGV, tries=99, every=4), tmp_path / "again"
    with pytest.raises(DataError, match="worked on it was ended by SIGSEGV") as caught:
        ingest(spec, {}, serial_context(folder, pool=LossyPool(ProcessPool(), dying)))
    assert "folder/" in caught.value.found, "the documents of the unit are named"
    before, finished = dying.begun(), finished_units(folder)
    assert MOST_TRIES in before.values()
    assert finished
    ingest(spec, {}, serial_context(folder, pool=LossyPool(ProcessPool(), Dying(None, notes, every=NOBODY))))
    after = dying.begun()
    again = {identity for identity in before if after[identity] > before[identity]}
    assert again == {identity for identity in before if dying.is_victim(identity)}
    assert digests(folder) == digests(undisturbed[0])


def test_a_killed_driver_loses_the_units_in_hand_and_another_number_of_workers_goes_on(
    undisturbed: tuple[Path, StageResult], tmp_path: Path, notes: Path, serial_context: Build, spec: IngestSpec,
    digests: Digests,
) -> None:  # fmt: skip
    folder = tmp_path / "again"
    command = [sys.executable, "-c", _DRIVER, spec.model_dump_json(), str(folder), str(notes), str(NOBODY)]
    driver = subprocess.Popen(command, cwd=ROOT)
    while len(finished_units(folder)) < 4:
        assert driver.poll() is None, "it was through before it was killed"
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = Dying(None, notes).begun()
    _let_go(notes)
    finished = {path.parent.name for path in finished_units(folder)}
    assert 4 <= len(finished) < len(finished_units(undisturbed[0]))
    assert len(before) - len(finished) <= 2, "more than the units in hand are lost"
    pool = LossyPool(ProcessPool(), Dying(None, notes, every=NOBODY))
    ingest(spec.model_copy(update={"workers": 3}), {}, serial_context(folder, pool=pool))
    again = {identity for identity, tries in Dying(None, notes).begun().items() if tries > before.get(identity, 0)}
    assert not {identity[2:32] for identity in again} & finished, "finished units were done again"
    assert digests(folder) == digests(undisturbed[0])


@pytest.mark.services
@pytest.mark.slow
def test_ray_makes_the_same_bytes_and_a_killed_worker_costs_its_unit_alone(
    undisturbed: tuple[Path, StageResult], tmp_path: Path, notes: Path, spec: IngestSpec, digests: Digests
) -> None:
    command = [sys.executable, "-c", _DRIVER, spec.model_dump_json(), str(tmp_path / "again"), str(notes), "3", "ray"]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    dying = Dying(None, notes, every=3)
    begun = dying.begun()
    victims = [identity for identity in begun if dying.is_victim(identity)]
    assert len(victims) > 1
    assert begun == {identity: 1 + (identity in victims) for identity in begun}
    assert done.stdout.count("what it had in hand is done again: ") == len(victims), done.stdout
    assert digests(tmp_path / "again") == digests(undisturbed[0])


def _let_go(notes: Path) -> None:
    """Wait until the processes of a dead driver have left."""
    pids = {int(pid) for note in notes.iterdir() for pid in note.read_text().split()}
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "they work on without a driver"
        time.sleep(0.01)


def test_digests_that_a_pool_takes_are_those_of_one_process(
    undisturbed: tuple[Path, StageResult], tmp_path: Path, serial_context: Build, spec: IngestSpec,
    digests: Digests, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ingest_digests, "ALONE_BYTES", 0)
    monkeypatch.setattr(digests_of_files, "_PIECE_BYTES", 50_000)
    context = serial_context(tmp_path / "again", pool=ProcessPool())
    result = ingest(spec, {}, context)
    assert '"digests"' in context.events.path.read_text(), "the pool was not asked"
    assert digests(tmp_path / "again") == digests(undisturbed[0])
    assert result.outputs == undisturbed[1].outputs

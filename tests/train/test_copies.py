"""Checkpoints in a store are those of the disk and count with their manifest; a store that is away stops nothing."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from moto.server import ThreadedMotoServer
from torch import nn

from foundation_core.data.stores.depot import Depot
from foundation_core.errors import (
    ConfigError,
    ElsewhereError,
    FoundationError,
    SecondWriterError,
    SetupError,
    TransientError,
)
from foundation_core.events import EventLog, read_events
from foundation_core.specs import OptimizerSpec
from foundation_core.specs.checkpoints import CheckpointSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.copies import StoreCopies, store_copies
from foundation_core.train.engine import Engine, EngineRequest, TorchEngine
from foundation_core.train.manifest import DAMAGED, finished
from foundation_core.train.ownership import Ownership
from foundation_core.train.retention import Retention
from tests.support.ranks import ThreadedEngine, of_each_rank

STATE = "rank-00000.safetensors"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real S3 API on loopback, with a bucket."""
    import boto3

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "a-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["s3", "folder", "memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    """A store of its own for each test: objects, a folder that is mounted somewhere, and what else fsspec speaks to."""
    if request.param == "folder":
        return Depot.at(str(tmp_path / "mounted" / "run"))
    if request.param in ("memory", "file"):
        return Depot.at(f"{request.param}://{tmp_path / 'store'}")
    return Depot.at(f"{request.getfixturevalue('server')}/{tmp_path.name}")


def _engine(fill: float = 0.0) -> TorchEngine:
    module = nn.Linear(4, 3)
    nn.init.constant_(module.weight, fill)
    return TorchEngine(module, EngineRequest(OptimizerSpec()))


def _checkpoints(
    folder: Path, store: Depot, engine: Engine | None = None, keep: int = 2, patience: float = 30.0
) -> Checkpoints:
    events, policy = EventLog(folder.with_name(f"{folder.name}-events")), Retention(keep)
    copies = StoreCopies(store, policy, events, patience)
    return Checkpoints(folder, engine or _engine(), {"order": "0"}, policy, events, copies=copies)


def _save(folder: Path, store: Depot, *steps: int, engine: Engine | None = None, **arguments: Any) -> None:
    with _checkpoints(folder, store, engine, **arguments) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"labels": step})
            checkpoints.finish(everywhere=True)


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for _, event in read_events(folder.with_name(f"{folder.name}-events")) if event["kind"] == kind]


def test_a_machine_that_has_nothing_goes_on_from_the_store(store: Depot, tmp_path: Path) -> None:
    _save(tmp_path / "one", store, 1, 2, 3, engine=_engine(2.5))
    assert store.names() == [f"step-0000000{step}/{name}" for step in (2, 3) for name in ("manifest.json", STATE)], (
        "the newest two, and no mark of a writer that left"
    )
    with _checkpoints(tmp_path / "other", store, engine := _engine()) as checkpoints:
        assert checkpoints.restore() == (3, {"labels": 3})
    assert torch.equal(engine.weights()["weight"], torch.full((3, 4), 2.5))
    assert list(finished(tmp_path / "other")) == [3]


def test_without_its_manifest_a_copy_does_not_count(store: Depot, tmp_path: Path) -> None:
    _save(tmp_path / "one", store, 1, 2)
    store.remove("step-00000002/manifest.json")
    with _checkpoints(tmp_path / "other", store) as checkpoints:
        assert checkpoints.restore() == (1, {"labels": 1})


def test_the_newest_counts_wherever_it_is(store: Depot, tmp_path: Path) -> None:
    _save(tmp_path / "one", store, 1)
    shutil.copytree(tmp_path / "one", tmp_path / "left")
    _save(tmp_path / "one", store, 2)
    with _checkpoints(tmp_path / "left", store) as checkpoints:
        assert checkpoints.restore() == (2, {"labels": 2})
        assert list(finished(tmp_path / "left")) == [1, 2]
    with _checkpoints(tmp_path / "left", Depot(tmp_path / "empty")) as checkpoints:
        assert checkpoints.restore() == (2, {"labels": 2})


def test_a_damaged_one_on_disk_is_brought_back_from_the_store(store: Depot, tmp_path: Path) -> None:
    _save(tmp_path / "one", store, 1, 2)
    path = tmp_path / "one" / "step-00000002" / STATE
    os.truncate(path, 99)
    with _checkpoints(tmp_path / "one", store) as checkpoints:
        assert checkpoints.restore() == (2, {"labels": 2})
    assert path.stat().st_size > 99


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: b"\0" + body[1:], None])
def test_a_damaged_copy_counts_no_more_and_the_one_before_is_taken(
    store: Depot, tmp_path: Path, damage: Callable[[bytes], bytes] | None
) -> None:
    _save(tmp_path / "one", store, 1, 2)
    name = f"step-00000002/{STATE}"
    if damage is None:
        store.remove(name)
    else:
        store.put_bytes(name, damage(store.read_bytes(name)))
    with _checkpoints(tmp_path / "other", store) as checkpoints:
        assert checkpoints.restore() == (1, {"labels": 1})
    assert "step-00000002/manifest.json" not in store.names()
    assert any(DAMAGED in path.name for path in (tmp_path / "other").iterdir())
    assert [event["failure"] for event in _events(tmp_path / "other", "failure")] == ["corrupt_checkpoint"]


def test_a_store_has_one_training(store: Depot, tmp_path: Path) -> None:
    with _checkpoints(tmp_path / "one", store), pytest.raises(TransientError, match="is being written by process"):
        _save(tmp_path / "other", store, 1)
    _save(tmp_path / "other", store, 1)


def test_every_rank_uploads_its_own_file(store: Depot, tmp_path: Path) -> None:
    uploaded: dict[int, list[str]] = {0: [], 1: []}

    class Watched(Depot):
        def put(self, name: str, source: Any) -> None:
            uploaded[self.rank].append(name)
            super().put(name, source)

        rank = 0

    def work(engine: ThreadedEngine) -> None:
        mine = Watched(store.place)
        mine.rank = engine.rank
        _save(tmp_path / "one", mine, 1, engine=engine)

    of_each_rank(2, work, lambda: nn.Linear(4, 3))
    assert uploaded[1] == ["step-00000001/rank-00001.safetensors"]
    assert "step-00000001/rank-00000.safetensors" in uploaded[0]
    assert uploaded[0][-1] == "step-00000001/manifest.json"

    def restore(engine: ThreadedEngine) -> Any:
        with _checkpoints(tmp_path / "other", store, engine) as checkpoints:
            return checkpoints.restore()

    assert of_each_rank(2, restore, lambda: nn.Linear(4, 3)) == [(1, {"labels": 1})] * 2


class Away(Depot):
    """A store that does not take files for a number of tries."""

    def __init__(self, place: Any, tries: int) -> None:
        super().__init__(place)
        self.tries = tries

    def put(self, name: str, source: Any) -> None:
        if name.startswith("step-") and self.tries:
            self.tries -= 1
            source.read(5)
            raise OSError(5, "the store did not give it")
        super().put(name, source)


def test_a_store_that_comes_back_gets_the_checkpoint_and_both_are_told(tmp_path: Path) -> None:
    _save(tmp_path / "one", Away(tmp_path / "store", tries=2), 1)
    assert Depot(tmp_path / "store").names() == ["step-00000001/manifest.json", f"step-00000001/{STATE}"]
    (failure,) = _events(tmp_path / "one", "failure")
    assert (failure["failure"], failure["step"], failure["attempt"]) == ("copies_away", 1, 1)
    assert 0 < failure["budget_left"] <= 30.0
    (recovered,) = _events(tmp_path / "one", "recovered")
    assert recovered["seconds"] >= 0.5
    with _checkpoints(tmp_path / "other", Depot(tmp_path / "store")) as checkpoints:
        assert checkpoints.restore() == (1, {"labels": 1})


class Picky(Depot):
    """A store that refuses some calls for a number of tries: (method, how the name ends)."""

    def __init__(self, place: Any, refuses: dict[tuple[str, str], int]) -> None:
        super().__init__(place)
        self.refuses = refuses

    def put(self, name: str, source: Any) -> None:
        self._refuse("put", name)
        super().put(name, source)

    def remove(self, name: str) -> None:
        self._refuse("remove", name)
        super().remove(name)

    def _refuse(self, method: str, name: str) -> None:
        for (refused, end), left in self.refuses.items():
            if refused == method and name.endswith(end) and left:
                self.refuses[refused, end] -= 1
                raise OSError(5, "the store did not answer")


def test_a_store_that_is_away_when_the_manifest_comes_gets_it_later(tmp_path: Path) -> None:
    _save(tmp_path / "one", Picky(tmp_path / "store", {("put", "manifest.json"): 2}), 1)
    assert Depot(tmp_path / "store").names() == ["step-00000001/manifest.json", f"step-00000001/{STATE}"]
    assert [event["failure"] for event in _events(tmp_path / "one", "failure")] == ["copies_away"]
    assert [event["failure"] for event in _events(tmp_path / "one", "recovered")] == ["copies_away"]


@pytest.mark.parametrize("name", ["step-00000001/manifest.json", f"step-00000001/{STATE}"])
def test_what_could_not_be_removed_is_removed_with_the_next_checkpoint(tmp_path: Path, name: str) -> None:
    store = Picky(tmp_path / "store", {("remove", name): 1})
    with _checkpoints(tmp_path / "one", store, keep=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"labels": step})
            checkpoints.finish(everywhere=True)
            there = {found.partition("/")[0] for found in store.names() if found.startswith("step-")}
            assert there == ({"step-00000001", "step-00000002"} if step == 2 else {f"step-0000000{step}"})
    assert not any(store.refuses.values())


def test_what_an_upload_that_was_cut_off_left_is_removed_once_a_later_checkpoint_counts(
    store: Depot, tmp_path: Path
) -> None:
    for step in (1, 9):
        store.put_bytes(f"step-0000000{step}/{STATE}", b"half")
    _save(tmp_path / "one", store, 2, 3)
    folders = {name.partition("/")[0] for name in store.names()}
    assert folders == {"step-00000002", "step-00000003", "step-00000009"}, "9 may be on its way again"


def test_a_step_that_was_cut_off_and_is_saved_again_stays_when_the_next_one_counts(
    store: Depot, tmp_path: Path
) -> None:
    store.put_bytes(f"step-00000002/{STATE}", b"half")
    store.put_bytes("step-00000002/rank-00001.safetensors", b"of a training with another rank")
    _save(tmp_path / "one", store, 1, 2, 3, engine=_engine(2.5))
    assert store.names() == [f"step-0000000{step}/{name}" for step in (2, 3) for name in ("manifest.json", STATE)]
    store.remove("step-00000003/manifest.json")
    with _checkpoints(tmp_path / "other", store, engine := _engine()) as checkpoints:
        assert checkpoints.restore() == (2, {"labels": 2})
    assert torch.equal(engine.weights()["weight"], torch.full((3, 4), 2.5))


def _take_over(store: Depot) -> None:
    """Another machine writes its mark."""
    store.put_bytes("writer.json", json.dumps({"owner": "another", "host": "elsewhere"}).encode())


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_writer_whose_store_another_machine_took_over_ends(tmp_path: Path, at_the_end: bool) -> None:
    store = Depot(tmp_path / "store")

    def train() -> None:
        with _checkpoints(tmp_path / "one", store) as checkpoints:
            _take_over(store)
            checkpoints.save(1, {"labels": 1})
            checkpoints.finish(everywhere=at_the_end)
            for step in () if at_the_end else (2, 3, 4):
                checkpoints.save(step, {"labels": step})
                checkpoints.finish()
                assert checkpoints.copies is not None
                checkpoints.copies.wait()
                checkpoints.copies.wait_for_commit()

    with pytest.raises(SecondWriterError, match=r"another process writes to .*store now: elsewhere"):
        train()
    assert "step-00000001/manifest.json" not in store.names()
    assert finished(tmp_path / "one"), "the disk keeps what was saved before"


def test_the_other_ranks_end_with_the_one_whose_store_was_taken(tmp_path: Path) -> None:
    store, raised = Depot(tmp_path / "store"), dict[int, Exception]()

    def work(engine: ThreadedEngine) -> None:
        with _checkpoints(tmp_path / "one", store, engine) as checkpoints:
            if engine.rank == 0:
                _take_over(store)
            checkpoints.save(1, {"labels": 1})
            try:
                checkpoints.finish(everywhere=True)
            except FoundationError as error:
                raised[engine.rank] = error

    of_each_rank(2, work, lambda: nn.Linear(4, 3))
    assert {rank: type(error) for rank, error in raised.items()} == {0: SecondWriterError, 1: ElsewhereError}


def test_at_the_end_one_patience_is_all_for_what_is_on_its_way_and_what_waits(tmp_path: Path) -> None:
    store = Away(tmp_path / "store", tries=10**6)
    with _checkpoints(tmp_path / "one", store, patience=2.0) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"labels": step})
            checkpoints.finish()
        began = time.monotonic()
        checkpoints.finish(everywhere=True)
        taken = time.monotonic() - began
    assert taken < 3.5, "two uploads, each with a patience of its own, take four seconds"
    assert len(_events(tmp_path / "one", "say")) == 2


def test_while_the_store_is_away_training_saves_on_disk_and_the_latest_gets_there(tmp_path: Path) -> None:
    store = Away(tmp_path / "store", tries=1)
    with _checkpoints(tmp_path / "one", store) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"labels": step})
            checkpoints.finish()
        assert list(finished(tmp_path / "one")) == [3, 4]
        checkpoints.finish(everywhere=True)
    assert {name.partition("/")[0] for name in store.names()} == {"step-00000001", "step-00000004"}, "2 and 3 were late"


def test_an_upload_that_outlasts_the_patience_is_given_up_and_the_disk_keeps_it(tmp_path: Path) -> None:
    store = Away(tmp_path / "store", tries=10**6)
    _save(tmp_path / "one", store, 1, patience=0.1)
    assert store.names() == []
    assert list(finished(tmp_path / "one")) == [1]
    (said,) = _events(tmp_path / "one", "say")
    assert "did not get into" in said["text"]
    assert _events(tmp_path / "one", "recovered") == []


def test_a_training_does_not_begin_where_the_store_does_not_answer(tmp_path: Path) -> None:
    """It could begin anew beside a month of checkpoints that it does not see."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TransientError, match=r"file/run could not be opened"):
        _save(tmp_path / "one", Depot(tmp_path / "file" / "run"), 1, patience=0.1)


@pytest.mark.parametrize("address", ["https://host/run", "hf://datasets/owner/name", "zip://run.zip", "nothing://run"])
def test_a_store_that_cannot_be_written_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be written"):
        store_copies(CheckpointSpec(store=address), Retention(), EventLog(tmp_path))


def test_a_store_whose_library_is_not_installed_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `abfs`, where adlfs is missing."""
    from fsspec.registry import known_implementations

    absent = {"class": "no_such_library.Store", "err": "Install no_such_library to use it"}
    monkeypatch.setitem(known_implementations, "elsewhere", absent)
    with pytest.raises(SetupError, match="Install no_such_library to use it") as caught:
        store_copies(CheckpointSpec(store="elsewhere://run"), Retention(), EventLog(tmp_path))
    assert "elsewhere://" in caught.value.found


def test_without_a_store_there_are_no_copies(tmp_path: Path) -> None:
    assert store_copies(CheckpointSpec(), Retention(), EventLog(tmp_path)) is None
    assert Ownership(Depot(tmp_path)).owner != Ownership(Depot(tmp_path)).owner

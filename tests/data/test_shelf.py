"""Shards in a store give the batches of shards on this disk, through a bounded folder that processes share."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from foundation_core.data.loading.loader import Batch, Loader
from foundation_core.data.loading.order import Order
from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.stores import shelf
from foundation_core.data.stores.places import located
from foundation_core.data.stores.shelf import ShardCache, StoreShelf, store_shelf
from foundation_core.errors import ConfigError, DataError, SetupError, TransientError
from foundation_core.specs.loading import Packing, ShardStoreSpec
from tests.support.bucket import NAME, bucket

LARGE = 10**9
Make = Callable[..., ShardDataset]


class Store(NamedTuple):
    """A bucket of a real S3 API on loopback, and its client."""

    address: str
    client: Any

    def copy(self, dataset: ShardDataset, name: str) -> str:
        """Copy the shards of a data set there; the address of their folder."""
        for shard in dataset.manifest["shards"]:
            body = (dataset.folder / shard["file"]).read_bytes()
            self.client.put_object(Bucket=NAME, Key=f"{name}/{shard['file']}", Body=body)
        return f"{self.address}/{name}"

    def empty(self, name: str) -> None:
        """Remove what was copied."""
        for found in self.client.list_objects_v2(Bucket=NAME, Prefix=f"{name}/").get("Contents", []):
            self.client.delete_object(Bucket=NAME, Key=found["Key"])


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with bucket() as made:
        yield Store(*made)


@pytest.fixture
def make(tmp_path: Path, write_tokens: Make) -> Make:
    """Writes a data set of twelve shards whose tokens begin at a number."""

    def write(name: str, first: int = 1) -> ShardDataset:
        documents = [list(range(first + 40 * number, first + 40 * (number + 1))) for number in range(12)]
        return write_tokens(tmp_path / name, documents, 40)

    return write


def shelved(dataset: ShardDataset, address: str, cache: ShardCache) -> ShardDataset:
    """The data set as it is read where only its manifest is in the folder."""
    return ShardDataset(dataset.folder, shelf=StoreShelf(cache, located(address)))


def epochs(dataset: ShardDataset, packing: Packing = "cut", steps: int = 20) -> list[Batch]:
    """Batches of more than two epochs."""
    windows = Windows(dataset, 16, packing)
    loader = Loader(windows, Order(len(windows), seed=3), 5, 5)
    return [batch for step in range(steps) for batch in loader.micro_batches(step)]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    return all(torch.equal(one[name], other[name]) for one, other in zip(first, second, strict=True) for name in one)


def kept(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.arrow")}


def names(dataset: ShardDataset) -> set[str]:
    return {shard["sha256"] for shard in dataset.manifest["shards"]}


def size(dataset: ShardDataset) -> int:
    return int(dataset.manifest["bytes"])


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_batches_are_those_of_this_disk_and_a_second_epoch_asks_for_nothing(
    tmp_path: Path, store: Store, make: Make, packing: Packing
) -> None:
    local = make("set")
    address = store.copy(local, packing)
    expected = epochs(local, packing)
    remote = shelved(local, address, ShardCache(tmp_path / "cache", LARGE))
    for path in local.folder.glob("*.arrow"):  # what is read can only come from the store
        path.unlink()
    assert equal(epochs(remote, packing), expected)
    assert kept(tmp_path / "cache") == names(local)
    store.empty(packing)  # whoever asked again would find nothing
    assert equal(epochs(remote, packing), expected)
    assert equal(epochs(shelved(local, address, ShardCache(tmp_path / "cache", LARGE)), packing), expected)
    with pytest.raises(DataError, match="is not there"):  # the negative control
        epochs(shelved(local, address, ShardCache(tmp_path / "another", LARGE)), packing)


def test_a_bound_that_the_corpus_does_not_fit_into_is_refused_with_what_it_needs(
    tmp_path: Path, store: Store, make: Make
) -> None:
    first, second = make("first"), make("second", 1000)
    cache = ShardCache(tmp_path / "cache", size(first) + size(second) - 1)
    shelved(first, store.address, cache)
    with pytest.raises(ConfigError, match="cannot hold the corpus") as refused:  # both are splits of one corpus
        shelved(second, store.address, cache)
    assert f"at least {size(first) + size(second)}," in refused.value.allowed
    shelved(second, store.address, ShardCache(tmp_path / "cache", size(second)))


def test_shards_of_other_corpora_leave_the_longest_unused_first_and_the_bound_holds(
    tmp_path: Path, store: Store, make: Make
) -> None:
    folder, first, second = tmp_path / "cache", make("first"), make("second", 1000)
    bound = size(first) + size(first) // 2
    cache = ShardCache(folder, bound)
    epochs(shelved(first, store.copy(first, "first"), cache))
    newest = first.manifest["shards"][0]["sha256"]
    for age, shard in enumerate(first.manifest["shards"]):
        os.utime(folder / f"{shard['sha256']}.arrow", (10**9 - age, 10**9 - age))
    address = store.copy(second, "second")
    with pytest.raises(SetupError, match="in use by other trainings"):  # the first one is still being read
        epochs(shelved(second, address, ShardCache(folder, bound)))
    for held in cache._held:  # its process ends
        held.close()
    epochs(shelved(second, address, ShardCache(folder, bound)))
    left = kept(folder)
    assert names(second) < left
    assert newest in left
    assert sum(path.stat().st_size for path in folder.glob("*.arrow")) <= bound


@pytest.mark.parametrize("length", ["same", "shorter"])
def test_a_changed_object_is_refused_by_its_hash_and_leaves_nothing(
    tmp_path: Path, store: Store, make: Make, length: str
) -> None:
    local = make("set")
    address = store.copy(local, "changed")
    shard = local.manifest["shards"][7]
    body = bytearray((local.folder / shard["file"]).read_bytes())
    body[len(body) // 2] ^= 1
    store.client.put_object(
        Bucket="bucket", Key=f"changed/{shard['file']}", Body=bytes(body if length == "same" else body[:-1])
    )
    with pytest.raises(DataError, match=r"shard-00007\.arrow is not the shard of this corpus") as refused:
        epochs(shelved(local, address, ShardCache(tmp_path / "cache", LARGE)))
    assert shard["sha256"] in refused.value.found
    assert shard["sha256"] not in kept(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_a_kept_shard_that_was_damaged_is_brought_anew(tmp_path: Path, store: Store, make: Make) -> None:
    local = make("set")
    address, expected = store.copy(local, "damaged"), epochs(local)
    epochs(shelved(local, address, ShardCache(tmp_path / "cache", LARGE)))
    path = next((tmp_path / "cache").glob("*.arrow"))
    path.write_bytes(b"\0" * path.stat().st_size)
    assert equal(epochs(shelved(local, address, ShardCache(tmp_path / "cache", LARGE))), expected)


@pytest.fixture
def breaking(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """A web server of the folder that breaks connections in the middle as often as the number says."""
    breaks = [0]

    class Breaking(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

        def copyfile(self, source: Any, outputfile: Any) -> None:
            body = source.read()
            if breaks[0]:
                breaks[0] -= 1
                outputfile.write(body[: len(body) // 2])
                outputfile.flush()
                self.connection.shutdown(2)
            else:
                outputfile.write(body)

    handler = functools.partial(Breaking, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/set", breaks
        server.shutdown()


def test_a_broken_connection_is_tried_again_and_then_said_to_be_passing(
    tmp_path: Path, make: Make, breaking: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "_WAITS_SECONDS", (0.0, 0.0))
    local, (address, breaks) = make("set"), breaking
    dataset = shelved(local, address, ShardCache(tmp_path / "cache", LARGE))
    breaks[0] = 2
    assert dataset.table(0).equals(local.table(0))
    assert breaks[0] == 0
    breaks[0] = 3
    with pytest.raises(TransientError, match=r"did not give http.*shard-00001\.arrow in 3 tries"):
        dataset.table(1)
    assert kept(tmp_path / "cache") == {local.manifest["shards"][0]["sha256"]}
    assert dataset.table(1).equals(local.table(1))


READ = """
import sys
from pathlib import Path
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.stores.shelf import store_shelf
from foundation_core.specs.loading import ShardStoreSpec
spec = ShardStoreSpec(address=sys.argv[2], cache_folder=sys.argv[3], cache_bytes=int(sys.argv[4]))
dataset = ShardDataset(Path(sys.argv[1]), shelf=store_shelf(spec, Path()))
dataset.prepare(range(dataset.shards))
print(sum(len(table) for table in dataset.tables()))
"""


def test_processes_share_one_folder_and_bring_each_shard_once(
    tmp_path: Path, make: Make, breaking: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, (address, _) = make("set"), breaking
    asked: list[str] = []
    served = http.server.SimpleHTTPRequestHandler.do_GET
    monkeypatch.setattr(
        http.server.SimpleHTTPRequestHandler, "do_GET", lambda self: (asked.append(self.path), served(self))
    )
    command = [sys.executable, "-c", READ, str(local.folder), address, str(tmp_path / "cache"), str(size(local))]
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{'0' * 64}.partial").write_bytes(b"0" * size(local))  # of a process that was killed
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [rank.communicate()[0].strip() for rank in ranks] == ["12"] * 3
    assert sorted(asked) == sorted(f"/set/{shard['file']}" for shard in local.manifest["shards"])
    assert kept(tmp_path / "cache") == names(local)


def test_a_spec_without_an_address_has_no_shelf(tmp_path: Path) -> None:
    corpus = tmp_path / "results" / "ingest" / "corpus-012345678901"
    assert store_shelf(ShardStoreSpec(), corpus) is None
    found = store_shelf(ShardStoreSpec(address="s3://bucket/corpus"), corpus)
    assert found is not None
    assert (found.cache.folder, str(found.place)) == (tmp_path / "cache" / "shards", "s3://bucket/corpus")

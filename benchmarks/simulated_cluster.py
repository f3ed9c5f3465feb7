"""What a cluster of 1,024 places is asked and told, without the places: `python -m benchmarks.simulation` runs it.

    described cluster --Ray's tables, made up--> room, device, workers          `cluster/room.py`
    votes of every rank --their sum--> each rank's figures, who is slow         `train/votes.py`, `train/stragglers.py`
    one state --shares--> 1,024 files, a manifest --1,000 ranks--> one state   `train/fragments.py`, `train/manifest.py`

Ray's tables of nodes and the exchange between ranks are made up; all that reads them is what a training runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

from cluster import room
from cluster.cluster_file import load_cluster
from foundation_core.errors import FoundationError, Requeued, SetupError, TransientError
from foundation_core.files import write_json
from foundation_core.specs import PretrainSpec
from foundation_core.specs.cluster import ClusterSpec
from foundation_core.train.fragments import WEIGHT, Fragment, StateFiles, share_out, whole
from foundation_core.train.manifest import (
    HASH,
    MANIFEST_FILE,
    MANIFEST_VERSION,
    STATE_FILE,
    find_fault,
    read_manifest,
    state_files,
)
from foundation_core.train.staging import Staging
from foundation_core.train.stragglers import LOOKS, Stragglers
from foundation_core.train.votes import agree, of_each_rank
from foundation_core.train.writer import write_hashed

CLUSTER = Path(__file__).parents[1] / "infra/clusters/h100_128_nodes.yaml"
THREADS = 8
OWN = "own_seconds"
READ_SECONDS = 10.0
"""Of the processor, for one rank to open all files, compare its share of them and read its part of the state."""

Said = tuple[str, bool]


def nodes_of(cluster: ClusterSpec) -> list[dict[str, Any]]:
    """The nodes of a described cluster as Ray's table has them."""
    there = {"CPU": float(THREADS * cluster.cards_per_node), "GPU": float(cluster.cards_per_node)}
    return [{"NodeID": f"node-{number}", "Alive": True, "Resources": there} for number in range(cluster.nodes)]


def launched(
    nodes: Sequence[Mapping[str, Any]], spec: PretrainSpec, *, leaving: Sequence[str] = (), **attempt: bool
) -> tuple[str, int] | type[FoundationError]:
    """Device and workers that an attempt would begin with on nodes that are free, or the error that it ends with.

    Args:
        leaving: ids of nodes that Ray was told will go.
        attempt: `is_first`, `preempted`.
    """
    free = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("ray.nodes", lambda: list(nodes)),
        patch("ray._private.state.available_resources_per_node", lambda: free),
        patch.object(room, "draining_nodes", lambda: dict.fromkeys(leaving, 0)),
    ):
        try:
            decided = room.with_device(spec, torch_has_cuda=True)
            started = {"is_first": True, "preempted": False, **attempt}
            return decided.device, room.wait_for_room(decided, Path(folder), **started)
        except FoundationError as error:
            return type(error)


def room_checks(cluster: ClusterSpec) -> Iterator[Said]:
    """What an attempt finds on a described cluster: all of it, with a node less, and with one worker too many."""
    nodes, ranks = nodes_of(cluster), cluster.ranks
    spec = PretrainSpec(workers=ranks, batch_rows=2 * ranks, threads_per_worker=THREADS)
    fewer = spec.model_copy(update={"least_workers": ranks - 3 * cluster.cards_per_node})
    left, one_lost = ranks - cluster.cards_per_node, [nodes[0] | {"Alive": False}, *nodes[1:]]
    going, on_gpus = [nodes[0]["NodeID"]], spec.model_copy(update={"device": "cuda"})
    yield f"{ranks:,} workers begin, each on a GPU", launched(nodes, spec) == ("cuda", ranks)
    yield f"{left:,} begin when a node will go", launched(nodes, fewer, leaving=going) == ("cuda", left)
    yield f"{left:,} begin when a node was lost", launched(one_lost, fewer) == ("cuda", left)
    yield (
        "who needs all asks to be queued again when a node was taken",
        launched(one_lost, on_gpus, is_first=False, preempted=True) is Requeued,
    )
    yield "and tries again when one was lost", launched(one_lost, on_gpus, is_first=False) is TransientError
    too_many = on_gpus.model_copy(update={"workers": ranks + 1})
    yield "a worker more than there are GPUs is refused", launched(nodes, too_many) is SetupError


class Summed:
    """One of many ranks, which hears the sum that is given."""

    def __init__(self, rank: int, world: int, total: Tensor | None = None) -> None:
        self.rank, self.world, self.total, self.brought = rank, world, total, torch.empty(0)

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Keeps what it brings; hears the sum of all, or of itself."""
        self.brought = value
        return value if self.total is None else self.total

    def gather_over_ranks(self, value: Tensor) -> Tensor:
        """Nobody asks."""
        raise AssertionError(value)


def votes_checks(world: int) -> Iterator[Said]:
    """Every rank's own figure goes through one sum, and the slow one is found among them."""
    slow = world * 2 // 3
    mine = [3.0 if rank == slow else 1.0 + rank / 8 / world for rank in range(world)]
    total = torch.zeros(0)
    for rank, own in enumerate(mine):
        one = Summed(rank, world)
        agree(one, {"stop": float(rank == 5), **of_each_rank(one, OWN, own)})
        total = one.brought if rank == 0 else total + one.brought
    heard = agree(Summed(0, world, total), {"stop": 0.0, **of_each_rank(Summed(0, world), OWN, mine[0])})
    seconds = {int(name.partition("/")[2]): took for name, took in heard.items() if name.startswith(OWN)}
    yield (
        f"a vote of {world:,} entries tells each rank's figure, and who wants to stop",
        heard["stop"] == 1.0 and [seconds[rank] for rank in range(world)] == mine,
    )
    judge = Stragglers(2.0, 1, 0.0)
    began = time.process_time()
    named = [verdict for look in range(LOOKS) for verdict in judge.saw(seconds, float(look))]
    took = (time.process_time() - began) / LOOKS
    yield (
        f"of {world:,} ranks the slow one alone is named, in {took:.3f} s a look",
        [(verdict.rank, verdict.slow) for verdict in named] == [(slow, True)] and took < 1,
    )


def state(values: int) -> list[Fragment]:
    """The tensors that every rank holds whole: a large one, small ones, and one of a single value."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"embedding": (values // 4, 2), "scale": ()} | {f"block.{n}": (values // 40, 2) for n in range(10)}
    return [whole(name, WEIGHT, torch.randn(shape, generator=draw)) for name, shape in shapes.items()]


def saved(folder: Path, fragments: Sequence[Fragment], world: int) -> None:
    """A checkpoint of so many ranks: a file of each, and the manifest."""
    files = []
    for rank in range(world):
        path, share = folder / STATE_FILE.format(rank=rank), list(share_out(fragments, rank, world))
        staged = Staging().copy(lambda share=share: share)
        files.append({"file": path.name, "bytes": staged.size, HASH: write_hashed(path, staged)})
    body = {"version": MANIFEST_VERSION, "step": 1, "world": world, "identity": {}, "state": {}, "seconds": 0.0}
    body |= {"loss": None, "ephemeral": False, "example": None, "files": files}
    write_json(folder / MANIFEST_FILE, body)


class Reading(NamedTuple):
    """What the ranks read of a checkpoint.

    Args:
        faults: that they found, each in its share of the files.
        same: whether their parts are those of the state, and together all of it.
        slowest_seconds: of the processor, of a rank that opened the files itself.
    """

    faults: int
    same: bool
    slowest_seconds: float


def read(folder: Path, fragments: Sequence[Fragment], world: int, alone: Sequence[int]) -> Reading:
    """Read a checkpoint at another number of ranks.

    Args:
        alone: ranks that begin with the manifest, as each does; the others read what one of these opened.
    """
    faults, same, values, slowest, files = 0, True, 0, 0.0, None
    for rank in range(world):
        began = time.process_time()
        if files is None or rank in alone:
            body = read_manifest(folder)
            files = StateFiles(folder / name for name in state_files(body))
        faults += find_fault(folder, body, rank, world).code > 0
        for part in share_out(fragments, rank, world):
            found = files.read(part.name, part.kind, part.start, len(part.values))
            same &= torch.equal(found, part.values)
            values += len(found)
        if rank in alone:
            slowest = max(slowest, time.process_time() - began)
    return Reading(faults, same and values == sum(len(part.values) for part in fragments), slowest)


def checkpoint_checks(folder: Path, world: int, other: int, values: int) -> Iterator[Said]:
    """A checkpoint of one number of ranks is read whole by another; damage is seen by the rank whose share it is."""
    fragments = state(values)
    saved(folder, fragments, world)
    alone = range(0, other, max(1, other // 4))
    found = read(folder, fragments, other, alone)
    yield f"{other:,} ranks read what {world:,} wrote, each value once", found.same and not found.faults
    yield (
        f"a rank opens and reads them in {found.slowest_seconds:.2f} s of the processor (bar {READ_SECONDS:g} s)",
        found.slowest_seconds <= READ_SECONDS,
    )
    path = folder / STATE_FILE.format(rank=world - 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    body = read_manifest(folder)
    seen = [rank for rank in range(other) if find_fault(folder, body, rank, other).code]
    yield "one rank sees a file that is damaged", seen == [(world - 1) % other]


def checks(other: int, values: int = 1_000_000) -> Iterator[Said]:
    """All of it on the described cluster."""
    cluster = load_cluster(CLUSTER)
    yield from room_checks(cluster)
    yield from votes_checks(cluster.ranks)
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-") as folder:
        yield from checkpoint_checks(Path(folder), cluster.ranks, other, values)

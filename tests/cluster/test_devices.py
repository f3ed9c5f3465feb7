"""Workers compute on what Ray's nodes have. No GPU has run it: what is asked of Ray and of torch is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cluster import ray_train, room
from cluster.attempt import AttemptWatch
from cluster.job import Job
from cluster.ray_train import _device, _fit
from cluster.room import Room, look_for_room, wait_for_room, with_device
from cluster.stop import StopFile
from foundation_core.alone import alone
from foundation_core.data.loading.loader import on_device
from foundation_core.errors import SetupError, TransientError
from foundation_core.events import EventLog, read_events
from foundation_core.objectives.language import NextToken
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, PretrainSpec, TrunkSpec
from foundation_core.stages.pretrain_setup import build_learner
from foundation_core.train.engine import EngineRequest

Resources = Mapping[str, float]
SPEC = PretrainSpec(model=ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2)), workers=2, threads_per_worker=2)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has Ray's tables hold these nodes, all of them free and none leaving."""

    def hold(there: Sequence[Resources]) -> None:
        import ray
        from ray._private import state

        body = [{"NodeID": str(n), "Alive": True, "Resources": dict(found)} for n, found in enumerate(there)]
        monkeypatch.setattr(ray, "nodes", lambda: body)
        free = {node["NodeID"]: node["Resources"] for node in body}
        monkeypatch.setattr(state, "available_resources_per_node", lambda: free)
        monkeypatch.setattr(room, "draining_nodes", dict)

    return hold


def _on(device: str, **fields: Any) -> PretrainSpec:
    return SPEC.model_copy(update={"device": device, **fields})


@pytest.mark.parametrize(
    ("there", "on_cpus", "on_gpus"),
    [
        ([{"CPU": 8}], 4, 0),
        ([{"CPU": 8, "GPU": 8}], 4, 4),
        ([{"CPU": 64, "GPU": 8}, {"CPU": 64}], 64, 8),
        ([{"CPU": 3, "GPU": 1}, {"CPU": 5, "GPU": 4}], 3, 3),
    ],
)
def test_a_worker_on_a_gpu_needs_one_of_its_node_beside_its_cpus(
    nodes: Any, there: Sequence[Resources], on_cpus: int, on_gpus: int
) -> None:
    nodes(there)
    assert (look_for_room(_on("cpu")).possible, look_for_room(_on("cuda")).possible) == (on_cpus, on_gpus)


@pytest.mark.parametrize(
    ("asked", "gpus", "torch_has_cuda", "device"),
    [
        ("auto", 2, True, "cuda"),
        ("auto", 1, True, "cpu"),
        ("auto", 0, True, "cpu"),
        ("auto", 2, False, "cpu"),
        ("cpu", 2, True, "cpu"),
        ("cuda", 0, False, "cuda"),
    ],
)
def test_gpus_are_taken_where_there_is_one_for_each_worker_and_torch_is_built_for_them(
    nodes: Any, asked: str, gpus: int, torch_has_cuda: bool, device: str
) -> None:
    nodes([{"CPU": 8, "GPU": gpus}])
    assert with_device(_on(asked), torch_has_cuda=torch_has_cuda).device == device


def test_gpus_that_are_asked_for_and_not_there_are_refused_with_their_number(nodes: Any, tmp_path: Path) -> None:
    nodes([{"CPU": 8, "GPU": 1}])
    with pytest.raises(SetupError, match="wants 2 workers with a GPU each, and Ray's nodes have 1 GPUs in all"):
        wait_for_room(_on("cuda"), tmp_path, is_first=True, preempted=False)
    with pytest.raises(TransientError, match="the workers need 2 GPUs, and 1 are left"):
        wait_for_room(_on("cuda"), tmp_path, is_first=False, preempted=False)
    assert wait_for_room(_on("cpu"), tmp_path, is_first=True, preempted=False) == 2


def test_who_waits_for_gpus_or_lacks_the_cpus_beside_them_hears_of_both(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes([{"CPU": 2, "GPU": 4}])
    with pytest.raises(SetupError, match=r"a GPU and 2 CPUs each, and Ray's nodes hold 1: they have 4 GPUs and 2 CPUs"):
        wait_for_room(_on("cuda"), tmp_path, is_first=True, preempted=False)
    with pytest.raises(TransientError, match="need 2 GPUs with 2 CPUs each, and 4 GPUs and 2 CPUs are left"):
        wait_for_room(_on("cuda"), tmp_path, is_first=False, preempted=False)
    looks = iter([Room(0, 2, 8, 8, 2, 1), Room(2, 2, 8, 8, 2, 2)])
    monkeypatch.setattr(room, "look_for_room", lambda spec: next(looks))
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.001)
    assert wait_for_room(_on("cuda"), tmp_path, is_first=True, preempted=False) == 2
    said = [event["text"] for _, event in read_events(tmp_path) if event["kind"] == "say"]
    assert said == ["waiting for 2 GPUs, with 2 CPUs each: 1 of 2 GPUs and 8 of 8 CPUs are free"]


def test_free_gpus_are_those_of_nodes_that_stay(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 2}])
    found = look_for_room(_on("cuda"))
    assert (found.gpus, found.free_gpus) == (6, 6)
    monkeypatch.setattr(room, "draining_nodes", lambda: {"1": 0})
    found = look_for_room(_on("cuda"))
    assert (found.gpus, found.free_gpus) == (4, 4)


@pytest.mark.parametrize(
    ("device", "resources", "backend"),
    [("cpu", {"CPU": 2}, "gloo"), ("cuda", {"CPU": 2, "GPU": 1}, "cpu:gloo,cuda:nccl")],
)
def test_ray_is_asked_for_what_the_workers_compute_on_and_for_who_carries_its_tensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, resources: Resources, backend: str
) -> None:
    import ray.train.torch

    asked: dict[str, Any] = {}

    class Trainer:
        def __init__(self, function: Any, **arguments: Any) -> None:
            asked.update(arguments)

        def fit(self) -> None:
            """Nothing to wait for."""

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    spec = _on(device)
    job = Job("pretrain", spec.model_dump(mode="json"), {}, str(tmp_path), {})
    EventLog(tmp_path).write("attempt", number=0, workers=2)
    watch = AttemptWatch(spec, tmp_path, StopFile(tmp_path, "7-0"), 2, None, cast(Any, None), dict)
    monkeypatch.setattr(watch, "look", lambda: None)
    assert _fit(job, spec, 2, 0, watch) is None
    scaling = asked["scaling_config"]
    assert (scaling.num_workers, scaling.use_gpu, scaling.resources_per_worker) == (2, device == "cuda", resources)
    assert asked["torch_config"].backend == backend
    assert asked["train_loop_config"]["device"] == device


def test_a_worker_takes_the_gpu_that_ray_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.train.torch

    taken: list[torch.device] = []
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cuda", 3))
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _device("cuda") == torch.device("cuda", 3)
    assert _device("cpu") == torch.device("cpu")
    assert taken == [torch.device("cuda", 3)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SetupError, match=r"a GPU, and torch .* finds none"):
        _device("cuda")


def test_the_model_is_on_the_device_when_its_engine_is_built_and_batches_follow_it(tmp_path: Path) -> None:
    """`meta` stands in for a GPU: a device that is not the CPU, on every machine."""
    built: list[torch.device] = []

    def engine(model: nn.Module, request: EngineRequest) -> Any:
        built.extend({parameter.device for parameter in model.parameters()})
        return SimpleNamespace(model=model)

    corpus = SimpleNamespace(
        objective=lambda spec: NextToken(),
        shape=SampleShape(vocabulary=50),
    )
    found = {}
    for name in ("cpu", "meta"):
        context = alone(tmp_path)
        around = replace(context, device=torch.device(name), engine=engine, choose_precision=_float32)
        found[name] = build_learner(SPEC, cast(Any, corpus), around).born
    assert [device.type for device in built] == ["cpu", "meta"]
    assert found["cpu"] == found["meta"], "the numbers are drawn on the CPU"
    batch: dict[str, Tensor] = on_device({"tokens": torch.zeros(2, 3, dtype=torch.int32)}, torch.device("meta"))
    assert batch["tokens"].device.type == "meta"


def _float32(asked: str) -> Any:
    return SimpleNamespace(name="float32")


@pytest.mark.parametrize(("built_for", "has_cuda"), [("12.8", True), (None, False)])
def test_the_torch_that_is_installed_decides_and_not_the_driver_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, has_cuda: bool
) -> None:
    """The supervisor may run on a node without a GPU."""
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not has_cuda)
    assert ray_train._torch_has_cuda() == has_cuda

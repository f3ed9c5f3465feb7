"""The faults themselves: real signals, real full disks, real damaged files, made to the parts of a running site."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from tests.chaos.site import NAN_MARK, Site
from tests.support.namespaces import lacking

Fault = Callable[[Site], None]

NAN_OBJECTIVE = "--pretrain.objective next_token_with_one_nan"
ADDRESS_SPACE_BYTES = 8 << 20
"""What a worker may still take when its memory runs out."""


def _kill(find: Callable[[Site], psutil.Process], number: signal.Signals = signal.SIGKILL) -> Fault:
    def fault(site: Site) -> None:
        process = find(site)
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(30)

    return fault


def _service(name: str, words: str) -> Callable[[Site], psutil.Process]:
    """The process of a service that does the work: below its guard, with words in its command line."""

    def find(site: Site) -> psutil.Process:
        below = psutil.Process(site.stack.states()[name]["pid"]).children(recursive=True)
        return next(process for process in site.stack.place.processes(words) if process in below)

    return find


def _working(words: str) -> Callable[[Site], psutil.Process]:
    """A process with words in its command line that is itself at work: no guard of one, and no shell around it."""

    def find(site: Site) -> psutil.Process:
        found = site.stack.place.processes(words)
        around = ("sh", "bash", "dash")
        lines = {process: " ".join(process.cmdline()) for process in found if process.name() not in around}
        return next(process for process, line in lines.items() if "cluster.guard" not in line)

    return find


def _second_raylet(site: Site) -> psutil.Process:
    """The raylet of the node on which the workers are."""
    assert site.node is not None
    below = site.node.raylet.children(recursive=True)
    assert any(worker in below for worker in site.stack.workers()), "the workers are with the head"
    return site.node.raylet


def _flow(site: Site) -> psutil.Process:
    return psutil.Process(json.loads((site.home / "runs" / site.run_id / "lease.json").read_text())["pid"])


def _fill_the_disk(site: Site) -> None:
    ballast = site.home / "results" / "ballast"
    assert os.path.ismount(ballast.parent), "the results lie on a disk that others use too"
    free = os.statvfs(ballast.parent)
    with open(ballast, "wb") as sink:
        os.posix_fallocate(sink.fileno(), 0, free.f_bavail * free.f_frsize)
    site.undo.append(("make room", lambda: ballast.unlink(missing_ok=True)))


def _truncate(path: Path) -> bytes:
    """Cut a file in half, in a new file of its name: a process that has mapped it keeps what it has."""
    whole = path.read_bytes()
    half = path.with_name(path.name + ".half")
    half.write_bytes(whole[: len(whole) // 2])
    os.replace(half, path)
    return whole


def _truncate_a_shard(site: Site) -> None:
    """The training dies too, so that it has to open the shard again."""
    folder = site.folder("ingest")
    assert folder is not None
    shard = max(folder.glob("tokens/train/*.arrow"), key=lambda path: path.stat().st_size)
    whole = _truncate(shard)
    site.undo.append(("bring the shard again", lambda: shard.write_bytes(whole) and None))
    FAULT["driver killed"](site)


def _truncate_the_newest_checkpoint(site: Site) -> None:
    """The training dies too, so that it has to read it."""
    newest = site.newest_checkpoint()
    FAULT["driver killed"](site)
    _truncate(max((p for p in newest.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size))


def _leave_no_memory(site: Site) -> None:
    """A worker's address space may grow no more: its next large tensor is refused."""
    worker = _working("RayTrainWorker")(site)
    limit = worker.memory_info().vms + ADDRESS_SPACE_BYTES
    worker.rlimit(resource.RLIMIT_AS, (limit, limit))


def _make_one_nan(site: Site) -> None:
    (site.home / NAN_MARK).touch()


FAULT: Mapping[str, Fault] = {
    "worker killed": _kill(_working("RayTrainWorker")),
    "raylet killed": _kill(_second_raylet),
    "head's raylet killed": _kill(_service("ray", "raylet/raylet")),
    "ray head killed": _kill(_service("ray", "gcs_server")),
    "driver killed": _kill(_working("-m cluster.job /")),
    "stage process killed": _kill(_working("cluster.job --serve")),
    "flow killed": _kill(_flow),
    "runner killed": _kill(_service("runner", "flows.runner")),
    "prefect killed": _kill(_service("prefect", "prefect server start")),
    "mlflow killed": _kill(_service("mlflow", "mlflow")),
    "worker stopped": _kill(_working("RayTrainWorker"), signal.SIGSTOP),
    "SIGTERM": _kill(_working("-m cluster.job /"), signal.SIGTERM),
    "disk full": _fill_the_disk,
    "shard truncated": _truncate_a_shard,
    "checkpoint truncated": _truncate_the_newest_checkpoint,
    "out of memory": _leave_no_memory,
    "transient NaN": _make_one_nan,
}


def others_of(fault: str) -> str:
    """Fields that a case of the fault sets beside those of all cases."""
    return NAN_OBJECTIVE if fault == "transient NaN" else ""


def needs(fault: str) -> str:
    """What this machine lacks for a fault; empty if nothing."""
    if fault == "disk full" and (os.getuid() != 0 or shutil.which("mount") is None):
        return "root, to mount a small disk"
    if fault == "network cut":
        return lacking()
    return ""

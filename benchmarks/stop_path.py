"""What arrives where when a training on a Ray cluster is told to stop: `python -m benchmarks.stop_path [CASE ...]`.

    a cluster of two nodes -> a driver with two workers of Ray Train, which exchange a number again and again
    -> one signal, notice or kill -> who heard it and when, how long it then lived, what Ray says of it afterwards

Nothing of the product is in it but the commands that start Ray: it is Ray's behaviour that decides how the product
catches a request (docs/decisions/0032-the-stop-path.md). A case takes a minute. Times count from the act.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.embedded import ray_access
from tests.support.ray_cluster import TwoNodes, running_two_nodes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 120.0
SETTLE_SECONDS = 3.0
NOTICE_SECONDS = 30
PREEMPTION = "DRAIN_NODE_REASON_PREEMPTION"
JOB = "stop-path"
LISTENS, ASKS, IS_A_JOB = "listens", "asks", "job"
"""Workers have handlers of ours; workers ask `ray.train.get_preemption_info`; the driver is a Ray job."""


@dataclass(frozen=True)
class Journal:
    """What all processes of a case write: lines of (time, who, what), and the wish that the workers leave."""

    folder: Path

    def write(self, who: str, what: str, **facts: Any) -> None:
        """Append a line."""
        with open(self.folder / "journal.jsonl", "a") as log:
            log.write(json.dumps({"time": time.time(), "who": who, "what": what, **facts}) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """All lines."""
        path = self.folder / "journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def leave(self) -> None:
        """Ask the workers to leave."""
        (self.folder / "leave").touch()

    def leaving(self) -> bool:
        """Whether somebody did."""
        return (self.folder / "leave").exists()


# ------------------------------------------------------------------------------------- in the driver and the workers


def _work(config: dict[str, Any]) -> None:
    """What a worker does: exchange a number with the others until they are asked to leave."""
    import ray
    import ray.train
    import torch
    from ray.train import get_context
    from torch import distributed

    rank, journal = get_context().get_world_rank(), Journal(Path(config["folder"]))
    journal.write(f"worker {rank}", "began", pid=os.getpid(), node=ray.get_runtime_context().get_node_id(), rank=rank)
    try:
        left, told = torch.zeros(1), None
        while not left:
            if config["asks"] and told is None and (told := ray.train.get_preemption_info()) is not None:
                journal.write(f"worker {rank}", f"get_preemption_info: {told}")
            left = torch.tensor([float(journal.leaving())])
            distributed.all_reduce(left)
            time.sleep(0.05)
    except Exception as error:
        journal.write(f"worker {rank}", f"raised {type(error).__name__}")
        raise
    journal.write(f"worker {rank}", "left")


def _listen(folder: str) -> None:
    """Hear every signal, in the main thread of a worker."""
    journal = Journal(Path(folder))

    def heard(number: int, frame: Any) -> None:
        journal.write(f"process {os.getpid()}", f"heard {signal.Signals(number).name}")
        if number != signal.SIGTERM or not journal.leaving():
            journal.leave()

    for number in SIGNALS:
        signal.signal(number, heard)


def _listening_group(folder: str, *, listens: bool) -> Any:
    from ray.train.torch import TorchConfig

    class Group(TorchConfig):  # type: ignore[misc]
        @property
        def backend_cls(self) -> Any:
            class Backend(super().backend_cls):  # type: ignore[misc]
                def on_start(self, worker_group: Any, backend_config: Any) -> None:
                    super().on_start(worker_group, backend_config)
                    if listens:
                        worker_group.execute(_listen, folder)

            return Backend

    return Group(backend="gloo")


def _watch_nodes(journal: Journal) -> None:
    """Write down whenever Ray changes its mind about a node."""
    import ray
    from ray._private.state import state

    known: Any = None
    while True:
        alive = {node["NodeID"][:6]: node["Alive"] for node in ray.nodes()}
        leaving = {node[:6]: deadline for node, deadline in state.get_draining_nodes().items()}
        if known not in (None, (alive, leaving)):
            journal.write("driver", f"sees nodes alive {alive}, leaving {sorted(leaving)}")
        known = (alive, leaving)
        time.sleep(0.25)


def drive(folder: str, *options: str) -> None:
    """The driver: two workers, until they end."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    journal = Journal(Path(folder))
    signal.signal(signal.SIGTERM, lambda *_: journal.write("driver", "heard SIGTERM by the handler of before ray.init"))
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    threading.Thread(target=_watch_nodes, args=(journal,), daemon=True).start()
    journal.write("driver", "began", pid=os.getpid())
    trainer = TorchTrainer(
        _work,
        train_loop_config={"folder": folder, "asks": ASKS in options},
        torch_config=_listening_group(folder, listens=LISTENS in options),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="stop", storage_path=folder, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        trainer.fit()
        journal.write("driver", "fit returned")
    except TrainingFailedError as error:
        journal.write("driver", f"fit raised {type(error).__name__}")
    _write_fates(journal)


def _write_fates(journal: Journal) -> None:
    """What Ray says of the workers, once it knows."""
    from ray.util.state import list_nodes, list_workers

    began = {line["pid"]: line for line in journal.lines() if line["what"] == "began" and "rank" in line}
    deadline, nodes = time.monotonic() + WAIT_SECONDS / 2, {}
    while time.monotonic() < deadline:
        nodes = {node.node_id: (node.state, node.state_message or "") for node in list_nodes(detail=True)}
        found = {w.pid: w for w in list_workers(detail=True, limit=10_000) if w.pid in began}
        if all(not w.is_alive or nodes[began[pid]["node"]][0] == "DEAD" for pid, w in found.items()):
            break
        time.sleep(0.5)
    for pid, worker in found.items():
        state, words = nodes[began[pid]["node"]]
        said = f"{worker.exit_type or 'alive'}; its node is {state} {words}"
        journal.write("Ray", f"of worker {began[pid]['rank']}: {said}")


# ------------------------------------------------------------------------------------------------------- from outside

Act = Callable[[TwoNodes, dict[str, dict[str, Any]], dict[str, str]], None]


def _signal(who: str, number: signal.Signals) -> Act:
    return lambda nodes, began, environment: os.kill(began[who]["pid"], number)


def _drain(nodes: TwoNodes, began: dict[str, dict[str, Any]], environment: dict[str, str]) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", environment["RAY_ADDRESS"]),
            *("--node-id", began["worker 1"]["node"], "--reason", PREEMPTION, "--reason-message", "a notice"),
            *("--deadline-remaining-seconds", str(NOTICE_SECONDS)),
        ],
        env={**os.environ, **environment}, check=True, capture_output=True,
    )  # fmt: skip


def _stop_job(nodes: TwoNodes, began: dict[str, dict[str, Any]], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "stop", "--no-wait", JOB]
    access = {**os.environ, **environment, "RAY_ADDRESS": nodes.address}
    subprocess.run(command, env=access, check=True, capture_output=True)


CASES: dict[str, tuple[Act, str]] = {
    "SIGTERM to a worker": (_signal("worker 1", signal.SIGTERM), ""),
    "SIGTERM to a worker that listens": (_signal("worker 1", signal.SIGTERM), LISTENS),
    "SIGINT to a worker that listens": (_signal("worker 1", signal.SIGINT), LISTENS),
    "SIGUSR2 to a worker that listens": (_signal("worker 1", signal.SIGUSR2), LISTENS),
    "SIGKILL to a worker": (_signal("worker 1", signal.SIGKILL), ""),
    "SIGTERM to the driver": (_signal("driver", signal.SIGTERM), ""),
    "SIGINT to the driver": (_signal("driver", signal.SIGINT), ""),
    "ray job stop": (_stop_job, IS_A_JOB),
    "a notice for a node": (_drain, ""),
    "a notice for a node whose workers ask Ray": (_drain, ASKS),
    "SIGTERM to a node": (lambda nodes, began, environment: nodes.ask_node_to_leave(), ""),
    "SIGKILL to a raylet": (lambda nodes, began, environment: nodes.kill_node(), ""),
}
"""What is done, and what is different about the driver or the workers."""
ENDS_A_NODE = (
    "a notice for a node", "a notice for a node whose workers ask Ray", "SIGTERM to a node", "SIGKILL to a raylet",
)  # fmt: skip


def try_case(name: str, nodes: TwoNodes, folder: Path) -> list[str]:
    """Run one case; its rows: seconds since the act, who, what."""
    act, option = CASES[name]
    journal = Journal(folder)
    environment = {
        **ray_access(nodes.token), "RAY_ADDRESS": nodes.gcs_address, "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(option == ASKS)),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.stop_path", "--drive", str(folder), option]
    if option == IS_A_JOB:
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", f"--address={nodes.address}"]
        command = [*submit, f"--submission-id={JOB}", "--", "exec", "env", f"PYTHONPATH={ROOT}", *command]
    with open(folder / "driver.log", "wb") as log:
        driver = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT)
    began = _wait_for_workers(journal, driver)
    time.sleep(SETTLE_SECONDS)
    at = time.time()
    act(nodes, began, environment)
    time.sleep(SETTLE_SECONDS)
    if name in ENDS_A_NODE:
        journal.leave()  # what a driver does that sees the notice
    try:
        driver.wait(WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        journal.write("driver", f"goes on after {WAIT_SECONDS:.0f} s")
        journal.leave()
        driver.wait(WAIT_SECONDS)
    journal.write("driver", f"ended with {driver.returncode}")
    return [
        f"| {name} | {line['time'] - at:.1f} | {line['who']} | {line['what']} |"
        for line in journal.lines()
        if line["time"] >= at
    ]


def _wait_for_workers(journal: Journal, driver: subprocess.Popen[bytes]) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(began := {line["who"]: line for line in journal.lines() if line["what"] == "began"}) < 3:
        if driver.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the workers did not begin: {journal.folder / 'driver.log'}")
        time.sleep(0.1)
    return began


def main(names: list[str]) -> None:
    """Try the cases, each on a cluster that has two nodes, and print what was seen."""
    print("| what was done | s | who | what |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder, running_two_nodes(Path(folder) / "nodes") as nodes:
        for number, name in enumerate(names or list(CASES)):
            place = Path(folder) / str(number)
            place.mkdir()
            print("\n".join(try_case(name, nodes, place)), flush=True)
            if name in ENDS_A_NODE:
                nodes.add_node()
    for process in psutil.Process().children(recursive=True):
        process.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        drive(*sys.argv[2:])
    else:
        main(sys.argv[1:])

"""Everything that can go wrong with a training, in one table: how it is known, what is done about it, how often.

what happened -> its class here -> budget left? -> the class's remedy -> events `failure` and `recovered`

The loop, the workers' supervisor and the documents read this one table. What cannot be told for certain has no class
of its own: nothing here is guessed from an exception's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Remedy(StrEnum):
    """What is done about a failure while its budget lasts."""

    RESTART = "restart"
    """New workers, as many as there is room for, go on from the newest checkpoint."""
    REDO = "redo"
    """The same step is done again."""
    REWIND = "rewind"
    """All ranks go back to a checkpoint and leave the documents out."""
    SMALLER = "smaller"
    """Half the micro-batch, twice the accumulation."""
    OLDER = "older"
    """The checkpoint before."""
    GO_ON = "go on"
    """Nothing stops: it is told, and what could not be delivered is delivered later."""
    STOP = "stop"
    """The job ends and says what to do."""


class FailureClass(NamedTuple):
    """One row of the table.

    Args:
        known_by: the fact that decides for this class.
        budget: how often in a row, with no step in between that was further than any before; None: without a limit.
        to_do: for the person who reads that the budget is used up.
        limit: what bounds it in one training, where that is no number of this table: fields of the recipe, or nature.
    """

    known_by: str
    remedy: Remedy
    budget: int | None
    to_do: str
    limit: str = ""


AGAIN = "run the same command again: it continues from the last checkpoint"

FAILURES: Mapping[str, FailureClass] = {
    "preempted": FailureClass(
        "Ray drains a worker's node (a notice of preemption, SIGTERM to the node), or a worker gets a signal to leave",
        Remedy.RESTART, None, AGAIN,
    ),
    "lost_node": FailureClass(
        "Ray's table of nodes calls the node of a worker dead, without a notice before",
        Remedy.RESTART, 3, f"see why nodes go away, let others join, then {AGAIN}",
    ),
    "killed_worker": FailureClass(
        "Ray's table of workers calls one dead whose node lives and whose process was not ended on purpose",
        Remedy.RESTART, 2, f"look at the Ray job's log, then {AGAIN}",
    ),
    "host_memory": FailureClass(
        "Ray's memory monitor says that it ended the worker, or the kernel's count of processes that it killed for want"
        " of memory rose on the dead worker's host",
        Remedy.RESTART, 1,
        "take fewer workers a node, a smaller --pretrain.micro_batch_rows, or a ZeRO stage that shards more; then"
        f" {AGAIN}",
    ),
    "lost_connection": FailureClass(
        "a rank's exchange with the others broke off, and Ray's tables know of no worker that died before",
        Remedy.RESTART, 2, f"look at the network between the nodes and at the Ray job's log, then {AGAIN}",
    ),
    "not_started": FailureClass(
        "the attempt ended before a worker spoke",
        Remedy.RESTART, 2, f"look at the Ray job's log, then {AGAIN}",
    ),
    "ray_away": FailureClass(
        "the Ray cluster of a job that was lost does not answer, or knows nothing of the job: its head, or the head's"
        " raylet, is gone; it is waited for, ten minutes each time",
        Remedy.RESTART, 3, f"run `foundation up`, or see that the cluster's head lives, then {AGAIN}",
    ),
    "hang": FailureClass(
        "a rank has not moved for many times its usual step; the stack of every rank is kept",
        Remedy.RESTART, 2, f"look at the stacks and at the network between the nodes, then {AGAIN}",
    ),
    "device_memory": FailureClass(
        "the allocator of the device refused in a step or a validation (where the CPU trains: the host's); only where"
        " the loss is a sum over rows",
        Remedy.SMALLER, None, f"lower --pretrain.micro_batch_rows, then {AGAIN}", "until one row is left",
    ),
    "transient_nan": FailureClass(
        "loss or gradient is not finite, and finite when the step is done again",
        Remedy.REDO, None, f"look at the memory and the processors, then {AGAIN}",
        "`pretrain.recovery.most_recomputed_steps`",
    ),
    "persistent_nan": FailureClass(
        "loss or gradient is not finite when the step is done again",
        Remedy.REWIND, None, "lower the learning rate, or look at the documents that are named",
        "`pretrain.recovery.most_quarantined_documents`, `.most_skipped_steps`",
    ),
    "loss_spike": FailureClass(
        "the loss is far outside of what it was in the steps before",
        Remedy.REWIND, None, "lower the learning rate, or look at the documents that are named",
        "`pretrain.recovery.most_quarantined_documents`, `.most_skipped_steps`",
    ),
    "straggler": FailureClass(
        "a rank's own work takes longer than the others', step after step",
        Remedy.GO_ON, None, "look at what else the named host does",
    ),
    "corrupt_checkpoint": FailureClass(
        "a file differs from its hash in the manifest, or the stored example gets other outputs",
        Remedy.OLDER, None, "look at the disk below the checkpoints", "while one is left",
    ),
    "corrupt_shard": FailureClass(
        "a shard differs from its sha256 in the manifest",
        Remedy.STOP, 0, "bring the shard again from where the corpus was made, or ingest anew",
    ),
    "storage_away": FailureClass(
        "a store of shards or checkpoints did not answer, or broke off, and asking again did not help",
        Remedy.RESTART, 3, f"see that the store answers, then {AGAIN}",
    ),
    "copies_away": FailureClass(
        "the store that gets copies of checkpoints (`pretrain.checkpoints.store`) did not take one, which is on disk",
        Remedy.GO_ON, None, "nothing: it is tried again until `store_patience_minutes` are over",
    ),
    "second_writer": FailureClass(
        "another process that lives writes checkpoints to the same folder or store",
        Remedy.RESTART, 2, f"wait for that training, or stop it; then {AGAIN}",
    ),
    "tracking_away": FailureClass(
        "MLflow or Prefect did not answer",
        Remedy.GO_ON, None, "nothing: what they missed is replayed from events.jsonl",
    ),
    "user_error": FailureClass(
        "a rank raised an error that says what is wrong with the recipe, the data or the set-up; or all of them ended"
        " with a fault of the program",
        Remedy.STOP, 0, "do what the message says; the same input gives the same error",
    ),
}  # fmt: skip
"""Every class by its name in events, MLflow and Prefect."""


class Budgets:
    """What one job has left of each class's budget."""

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()

    def spend(self, name: str) -> bool:
        """Count one failure of a class; whether its remedy may be tried once more."""
        self._spent[name] += 1
        budget = FAILURES[name].budget
        return budget is None or self._spent[name] <= budget

    def spent(self, name: str) -> int:
        """How often the class has come in a row."""
        return self._spent[name]

    def left(self, name: str) -> int | None:
        """How often more the class may come; None: without a limit."""
        budget = FAILURES[name].budget
        return None if budget is None else max(0, budget - self._spent[name])

    def renew(self) -> None:
        """Give every class its whole budget again: the work got further than ever before."""
        self._spent.clear()


def told(event: Mapping[str, Any]) -> str:
    """An event `failure` or `recovered` in words."""
    if event["kind"] == "recovered":
        return f"recovered from {_name(event)} after {event['seconds']:.0f} s{_at(event)}"
    left = event.get("budget_left")
    budget = "" if left is None else f"; {left} more in a row would be borne"
    return f"{_name(event)}{_at(event)}: {event['what']}{budget}"


def _name(event: Mapping[str, Any]) -> str:
    """The class, and which service it was if it can be one of two."""
    return f"{event['failure']} ({event['service']})" if "service" in event else str(event["failure"])


def _at(event: Mapping[str, Any]) -> str:
    return "" if event.get("step") is None else f", step {event['step']}"


def table_rows() -> list[str]:
    """The table in Markdown, as `docs/operations.md` has it."""
    rows = ["| class | known by | remedy | times in a row | when they are used up |", "| --- | --- | --- | --- | --- |"]
    for name, row in FAILURES.items():
        budget = row.limit or ("no limit" if row.budget is None else str(row.budget))
        rows.append(f"| `{name}` | {row.known_by} | {row.remedy} | {budget} | {row.to_do} |")
    return rows

"""Saves a checkpoint again and again, killed by SIGKILL before its first file operation, its second, its third...

    python killed_writer.py FOLDER

prints, for each story, pairs: the operation that did not happen, and what a fresh engine then restores. Operations are
those of the training and of the thread that writes beside it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from torch import nn

from foundation_core.specs import OptimizerSpec
from foundation_core.train.checkpoint import Checkpoints
from foundation_core.train.engine import EngineRequest, TorchEngine
from foundation_core.train.retention import Retention

OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")
STORIES = {
    "the first": ([], 1, 2),
    "one more": ([1], 2, 2),
    "one that replaces the earlier": ([1], 2, 1),
    "the same step again": ([1, 2], 2, 2),
    "the only step again": ([2], 2, 1),
}
"""Steps saved before, the step being saved, how many are kept."""


def checkpoints(folder: Path, keep: int) -> Checkpoints:
    """The checkpoints of a small engine."""
    return Checkpoints(folder, TorchEngine(nn.Linear(8, 8), EngineRequest(OptimizerSpec())), {}, Retention(keep))


def die_at(moment: int, folder: Path, report: int) -> None:
    """Kill this process before its `moment`-th file operation in a folder, and tell the operation's name."""
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in OPERATIONS and (event != "open" or str(folder) in str(arguments[0])):  # modules are opened too
            seen += 1
            if seen == moment:
                os.write(report, event.encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def restored(folder: Path, keep: int) -> str:
    """What the checkpoints of a folder hold, to a process that comes later."""
    with checkpoints(folder, keep) as there:
        found = there.restore()
    return f"{found[1]['words']} step {found[0]}" if found else "nothing"


def killed_at_every_moment(folder: Path, before: list[int], step: int, keep: int) -> list[tuple[str, str]]:
    """Kill a writer at every moment, one after the other, until one is not killed."""
    found: list[tuple[str, str]] = []
    while not found or found[-1][0] != "not killed":
        shutil.rmtree(folder, ignore_errors=True)
        with checkpoints(folder, keep=9) as there:
            for earlier in before:
                there.save(earlier, {"words": "earlier"})
            there.finish()
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            die_at(len(found) + 1, folder, write_end)
            with checkpoints(folder, keep) as there:
                there.save(step, {"words": "new"})
            os.write(write_end, b"not killed")
            os._exit(0)
        os.close(write_end)
        os.waitpid(child, 0)
        operation = os.read(read_end, 100).decode()
        os.close(read_end)
        found.append((operation, restored(folder, keep)))
    return found


if __name__ == "__main__":
    root = Path(sys.argv[1])
    print(json.dumps({name: killed_at_every_moment(root / "writer", *story) for name, story in STORIES.items()}))

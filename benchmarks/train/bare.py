"""The bare step: the model, engine, objective and rows of a training in one process, and nothing around its steps.

No events, tracking, votes, watchdog, checkpoints or prefetching: rows are read before the first step.
`python -m benchmarks.train.bare JOB.json FOLDER` prints tokens a second as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.train.rival import WARM_UP_STEPS
from cluster.deepspeed_engine import engine_factory
from cluster.embedded import free_port
from cluster.job import Job
from foundation_core.alone import alone
from foundation_core.specs import PretrainSpec
from foundation_core.stages.pretrain_setup import build_learner, open_corpus, open_reading
from foundation_core.store import load_result
from foundation_core.train.schedule import lr_at
from foundation_core.train.step import train_step


def tokens_per_second(job: Job, folder: Path) -> float:
    """Of a pretraining's steps behind the warm-up, by the wall clock."""
    spec = job.typed_spec()
    assert isinstance(spec, PretrainSpec)
    inputs = {role: load_result(Path(path)) for role, path in job.inputs.items()}
    context = replace(alone(folder), engine=engine_factory(spec.engine, spec.zero_stage))
    corpus = open_corpus(spec, inputs, context)
    learner = build_learner(spec, corpus, context)
    loader = open_reading(spec, corpus, context, learner).loader
    batches = [loader.micro_batches(step) for step in range(spec.steps)]
    learner.engine.model.train()
    start = 0.0
    for step, micro_batches in enumerate(batches):
        if step == WARM_UP_STEPS:
            start = time.perf_counter()
        lr = lr_at(step, spec.steps, spec.optimizer)
        train_step(learner.engine, learner.objective, micro_batches, lr, spec.seed)
    seconds = time.perf_counter() - start
    return (spec.steps - WARM_UP_STEPS) * spec.batch_rows * spec.model.context_tokens / seconds


def main(job: Job, folder: Path) -> None:
    """Measure in a group of one rank, as DeepSpeed wants it."""
    torch.set_num_threads(job.spec["threads_per_worker"])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "1", "RANK": "0"}
    os.environ |= {**meeting, "LOCAL_RANK": "0"}
    dist.init_process_group("gloo")
    print(json.dumps({"tokens_per_second": tokens_per_second(job, folder)}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Job.read(Path(sys.argv[1])), Path(sys.argv[2]))

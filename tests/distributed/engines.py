"""One rank of the short trainings of `combinations.py`: `python -m tests.distributed.engines OUT CASES`.

    a case -> 4 steps on two ranks; what they are after 2 of them is saved -> a new engine of the same kind, 2 steps
                                                                           -> one of another kind or stage, 2 steps

CASES is a JSON file: {name: fields of a PretrainSpec, family, and resumed_by, the other engine as "deepspeed 3"}.
RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which rank this is. Rank 0 writes OUT/outcomes.json: by name, the
losses of all three, or the error.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluster.deepspeed_engine import engine_factory
from foundation_core.model.families import build
from foundation_core.model.initialize import initialize
from foundation_core.specs import ModelSpec, PretrainSpec
from foundation_core.train.blocks import checkpoint_activations, compile_blocks
from foundation_core.train.engine import Engine, EngineFactory, EngineRequest
from foundation_core.train.fragments import StateFiles
from foundation_core.train.schedule import lr_at
from foundation_core.train.staging import Staging
from foundation_core.train.step import train_step
from foundation_core.train.writer import write_hashed
from tests.golden.test_decoder_losses import CONTEXT, ROWS
from tests.golden.test_family_losses import FAMILIES, TRUNK, batch

STEPS, SAVED_AFTER = 4, 2


@dataclass
class Case:
    """A combination at work.

    Args:
        spec: engine, stage, optimizer, precision and what else is combined; its model is that of the family.
        family: a name of `FAMILIES`.
        resumed_by: the other engine that takes its state over: torch, or deepspeed and a ZeRO stage.
    """

    spec: PretrainSpec
    family: str
    resumed_by: str = "torch"

    def engine(self, make: EngineFactory, seed: int = 0) -> Engine:
        """An engine around a fresh model."""
        family, spec = FAMILIES[self.family], self.spec
        shape = ModelSpec(**{"trunk": TRUNK, "context_tokens": CONTEXT, **family.model})
        model = initialize(build(shape, family.shape), seed)
        if spec.compile:
            compile_blocks(model)
        if spec.activation_checkpointing:
            checkpoint_activations(model)
        request = EngineRequest(spec.optimizer, spec.precision, spec.micro_batch_rows, spec.offload_optimizer)
        return make(model, request)

    def losses(self, engine: Engine, first: int, end: int) -> list[float]:
        """The loss of one label in each step."""
        family, optimizer = FAMILIES[self.family], self.spec.optimizer
        engine.model.train()
        found = []
        for step in range(first, end):
            batches = self._share(batch(step, family.shape), engine)
            rate = lr_at(step, STEPS, optimizer)
            found.append(train_step(engine, family.objective, batches, rate, seed=0).loss)
        return found

    def _share(self, rows: dict[str, Tensor], engine: Engine) -> list[dict[str, Tensor]]:
        """This rank's rows, in micro-batches where the objective has any."""
        own = ROWS // engine.world
        size = min(self.spec.micro_batch_rows, own) if FAMILIES[self.family].objective.decomposable else own
        mine = {name: value[engine.rank * own :][:own] for name, value in rows.items()}
        return [{name: value[at:][:size] for name, value in mine.items()} for at in range(0, own, size)]


def outcome(case: Case, folder: Path) -> dict[str, Any]:
    """The losses of a training, and of two that took over its state."""
    make = engine_factory(case.spec.engine, case.spec.zero_stage)
    other, _, stage = case.resumed_by.partition(" ")
    engine = case.engine(make)
    losses = case.losses(engine, 0, SAVED_AFTER)
    folder.mkdir(parents=True, exist_ok=True)
    write_hashed(folder / f"rank-{engine.rank}.safetensors", Staging().copy(engine.fragments))
    losses += case.losses(engine, SAVED_AFTER, STEPS)
    engine.barrier()
    found: dict[str, Any] = {"losses": losses, "offloads": _offloads(engine)}
    for name, factory in {"resumed": make, "taken_over": engine_factory(other, int(stage or 0))}.items():
        again = case.engine(factory, seed=1)
        again.restore(StateFiles(folder.glob("rank-*.safetensors")))
        found[name] = case.losses(again, SAVED_AFTER, STEPS)
    return found


def _offloads(engine: Engine) -> bool:
    """Whether the optimizer's state leaves the accelerator, by what DeepSpeed's optimizer says of itself."""
    optimizer = getattr(getattr(engine, "_engine", None), "optimizer", None)
    return any(getattr(optimizer, name, False) for name in ("cpu_offload", "offload_optimizer"))


def main(out: Path, cases: Path) -> None:
    """Do every case; one that fails is written down, and ends the others only if the ranks can no longer speak."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    outcomes = {}
    for name, fields in json.loads(cases.read_text()).items():
        family, resumed_by = fields.pop("family"), fields.pop("resumed_by")
        try:
            outcomes[name] = outcome(Case(PretrainSpec(**fields), family, resumed_by), out / name)
        except Exception as error:
            outcomes[name] = {"error": f"{type(error).__name__}: {error}"}
        if dist.get_rank() == 0:
            (out / "outcomes.json").write_text(json.dumps(outcomes))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

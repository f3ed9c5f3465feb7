"""What each choice of `recipes/shakespeare.yaml` is worth: the recipe with one of them undone, as many steps, one seed.

    the recipe, and each of CHOICES undone -> `foundation pretrain shakespeare` -> nats a character, seconds

Steps are the same for all, so the figures hold on any machine; seconds stand beside them, since what a choice costs
decides how many steps there are time for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.train.quality import Found, ingested, trained

CHOICES: Mapping[str, Mapping[str, str]] = {
    "the recipe": {},
    "AdamW for Muon": {"optimizer.kind": "adamw"},
    "cosine for WSD": {"optimizer.schedule": "cosine"},
    "no vectors for runs": {"model.runs.lengths": "[]"},
    "runs of 2 and 3 only": {"model.runs.lengths": "[2, 3]"},
    "learned positions for rotary": {"model.trunk.position": "learned"},
    "no norm of queries and keys": {"model.trunk.qk_norm": "false"},
    "GELU for squared ReLU": {"model.trunk.feed": "gelu"},
    "embeddings at the rate of the rest": {"optimizer.embedding_lr_factor": "1"},
    "twice the rows, half the steps": {"batch_rows": "16", "micro_batch_rows": "16"},
}
"""What is undone, by the fields of `pretrain` that undo it."""
HALVED = "twice the rows, half the steps"


def measure(text: Path, steps: int, names: list[str]) -> dict[str, Found]:
    """What every variant comes to; all see as many characters."""
    found = {}
    with ingested(text) as (results, source):
        for choice in names:
            mine = steps // 2 if choice == HALVED else steps
            same = {"steps": str(mine), "max_seconds": "null", "validate_every_steps": str(mine)}
            fields = {**same, **CHOICES[choice]}
            words = [word for field, value in fields.items() for word in (f"--pretrain.{field}", value)]
            found[choice] = trained(results, 0, text, [*source, *words], choice)
    return found


def report(found: Mapping[str, Found]) -> int:
    """Print a line for each choice."""
    whole = found["the recipe"]
    print(f"{'':<36} nats    against the recipe   s")
    for choice, each in found.items():
        print(f"{choice:<36} {each.nats:.4f}  {each.nats - whole.nats:+.4f}              {each.seconds:6.1f}")
    return 0

"""Which parts of a training go together: what cannot work is refused before anything starts, with the reason.

    PretrainSpec -> conflicts: rules that it breaks          nowhere: the recipe has to change
                 -> check_tools  : programs it needs         on this machine

`tests/distributed/test_combinations.py` runs trainings that have every pair of choices that no rule forbids and that
need no compiler; docs/engines.md has the table of what ran.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from foundation_core.errors import ConfigError, SetupError
from foundation_core.specs import PretrainSpec


@dataclass(frozen=True)
class Rule:
    """Two choices that do not go together.

    Args:
        choices: the two, as columns and rows of the table in the docs name them.
        broken: whether a spec makes both.
        reason: why it cannot work.
        fix: what to set.
    """

    choices: tuple[str, str]
    broken: Callable[[PretrainSpec], bool]
    reason: str
    fix: str


RULES = (
    Rule(
        ("muon", "deepspeed 1, 2, 3"),
        lambda spec: spec.optimizer.kind == "muon" and spec.engine == "deepspeed" and spec.zero_stage > 0,
        "muon orthogonalises whole matrices, and ZeRO 1 to 3 give the optimizer flat pieces of them",
        "--pretrain.engine torch, which shares the orthogonalising out over any number of workers, or"
        " --pretrain.zero_stage 0",
    ),
    Rule(
        ("cpu_adam", "torch"),
        lambda spec: spec.optimizer.kind == "cpu_adam" and spec.engine == "torch",
        "cpu_adam is DeepSpeed's",
        "--pretrain.engine deepspeed, or --pretrain.optimizer.kind adamw",
    ),
    Rule(
        ("offload_optimizer", "torch, deepspeed 0"),
        lambda spec: spec.offload_optimizer and (spec.engine == "torch" or spec.zero_stage == 0),
        "only the optimizers of DeepSpeed's stages 1 to 3 can leave the accelerator's memory",
        "--pretrain.engine deepspeed --pretrain.zero_stage 1, or --pretrain.offload_optimizer false",
    ),
)


def conflicts(spec: PretrainSpec) -> list[Rule]:
    """The rules that a spec breaks."""
    return [rule for rule in RULES if rule.broken(spec)]


def check_combination(spec: PretrainSpec) -> None:
    """Refuse what cannot work anywhere.

    Raises:
        ConfigError: choices that do not go together, all of them at once.
    """
    broken = conflicts(spec)
    if broken:
        raise ConfigError(
            "pretrain's choices do not go together: " + "; ".join(rule.reason for rule in broken),
            fix="; ".join(rule.fix for rule in broken),
        )


def check_tools(spec: PretrainSpec, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse what this machine has no compiler for; asked on the machine of each worker.

    Raises:
        SetupError: a program is missing that turns the spec's choices into machine code.
    """
    wants = {"--pretrain.compile": spec.compile, "optimizer.kind cpu_adam": spec.optimizer.kind == "cpu_adam"}
    for what, wanted in wants.items():
        missing = _missing(what != "--pretrain.compile", environment) if wanted else []
        if missing:
            raise SetupError(
                f"{what} makes machine code, and there is no {' and no '.join(missing)} on this machine",
                fix="install it on every node (Debian: g++, ninja-build), or leave that out: nothing else needs it",
            )


def _missing(with_ninja: bool, environment: Mapping[str, str]) -> list[str]:
    path, compiler = environment.get("PATH"), environment.get("CXX", "g++")
    programs = [compiler, "ninja"] if with_ninja else [compiler]
    return [program for program in programs if shutil.which(program, path=path) is None]

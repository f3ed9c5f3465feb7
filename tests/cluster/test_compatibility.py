"""Choices that do not go together are refused with the reason and with what to set, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.compatibility import RULES, check_combination, check_tools, conflicts
from cluster.preflight import check_recipe
from foundation_core.errors import ConfigError, SetupError
from foundation_core.recipe import parse_recipe
from foundation_core.specs import OptimizerSpec, PretrainSpec

BROKEN = {
    "muon": PretrainSpec(optimizer=OptimizerSpec(kind="muon"), engine="deepspeed", zero_stage=1),
    "cpu_adam": PretrainSpec(optimizer=OptimizerSpec(kind="cpu_adam"), engine="torch"),
    "offload_optimizer": PretrainSpec(offload_optimizer=True, engine="deepspeed", zero_stage=0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_is_broken_by_what_it_is_about_and_said_with_its_reason(name: str) -> None:
    (rule,) = [rule for rule in RULES if rule.choices[0] == name]
    assert conflicts(BROKEN[name]) == [rule]
    with pytest.raises(ConfigError) as caught:
        check_combination(BROKEN[name])
    assert rule.reason in caught.value.found
    assert rule.fix in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        PretrainSpec(),
        PretrainSpec(optimizer=OptimizerSpec(kind="muon"), engine="torch", workers=2),
        PretrainSpec(optimizer=OptimizerSpec(kind="muon"), zero_stage=0),
        PretrainSpec(optimizer=OptimizerSpec(kind="cpu_adam"), offload_optimizer=True, zero_stage=3),
    ],
    ids=lambda spec: f"{spec.engine}-{spec.optimizer.kind}-{spec.zero_stage}",
)
def test_what_goes_together_is_not_refused(spec: PretrainSpec) -> None:
    check_combination(spec)


def test_all_conflicts_are_said_at_once_and_by_the_check_of_a_recipe() -> None:
    recipe = parse_recipe(
        {"pretrain": {"engine": "torch", "offload_optimizer": True, "optimizer": {"kind": "cpu_adam"}}}
    )
    with pytest.raises(ConfigError, match=r"cpu_adam is DeepSpeed's; only the optimizers of DeepSpeed's"):
        check_recipe(recipe)


def test_a_missing_compiler_is_named_only_where_one_is_needed(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("")
    compiler.chmod(0o755)
    compiled, cpu_adam = PretrainSpec(compile=True), BROKEN["cpu_adam"]
    for nothing in ({}, {"PATH": ""}):
        check_tools(PretrainSpec(), nothing)
    with pytest.raises(SetupError, match=r"--pretrain\.compile makes machine code, and there is no g\+\+ on this"):
        check_tools(compiled, {"PATH": str(tmp_path)})
    check_tools(compiled, {"PATH": str(tmp_path), "CXX": "c++"})
    with pytest.raises(SetupError, match=r"cpu_adam makes machine code, and there is no ninja on this machine"):
        check_tools(cpu_adam, {"PATH": str(tmp_path), "CXX": "c++"})

"""What no rule forbids runs, learns what plain torch learns, and resumes; what a rule forbids does not work indeed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.compatibility import RULES, check_tools, conflicts
from foundation_core.errors import SetupError
from foundation_core.specs import PretrainSpec
from tests.distributed.combinations import (
    BEGIN,
    CHOICES,
    END,
    PAGE,
    RECORD,
    Combination,
    allowed,
    covering_set,
    failed,
    name_of,
    needs_compiler,
    pairs_of,
    record,
    reference,
    relative,
    run,
    spec_of,
    tables,
)
from tests.distributed.engines import SAVED_AFTER

pytestmark = pytest.mark.timeout(600)
OFF = {"float32": 1e-5, "bf16": 2e-2}  # measured: 1.7e-7, 5.3e-3
PLAIN = [combination for combination in allowed() if not needs_compiler(combination)]
COMPILED = [combination for combination in allowed() if needs_compiler(combination)]
COVERING = covering_set(PLAIN)
USUAL: Combination = {name: values[0] for name, values in CHOICES.items()}
FORBIDDEN = [
    *({**USUAL, "engine": f"deepspeed {stage}", "optimizer": "muon"} for stage in (1, 2, 3)),
    {**USUAL, "optimizer": "cpu_adam"},
    *({**USUAL, "engine": engine, "offload_optimizer": True} for engine in ("torch", "deepspeed 0")),
]
"""Every choice that a rule of `compatibility` refuses."""

Outcomes = Mapping[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What two ranks without a compiler made of the covering set, and of what is forbidden."""
    return run([*COVERING, *FORBIDDEN], tmp_path_factory.mktemp("combinations"), PATH="")


def _check(combination: Combination, outcome: Mapping[str, Any], known: dict[tuple[str, str], list[float]]) -> None:
    assert "error" not in outcome, outcome
    assert relative(outcome["losses"], reference(combination, known)) < OFF[combination["precision"]]
    rest = outcome["losses"][SAVED_AFTER:]
    assert relative(outcome["resumed"], rest) <= (0 if combination["precision"] == "float32" else OFF["bf16"])
    assert relative(outcome["taken_over"], rest) < OFF[combination["precision"]]
    assert outcome["offloads"] == combination["offload_optimizer"]


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], list[float]]:
    """Losses of plain torch, computed once for each optimizer and family."""
    return {}


@pytest.mark.parametrize("combination", COVERING, ids=name_of)
def test_what_is_allowed_learns_what_plain_torch_learns_and_is_taken_over_by_its_own_kind_and_by_another(
    outcomes: Outcomes, known: dict[tuple[str, str], list[float]], combination: Combination
) -> None:
    _check(combination, outcomes[name_of(combination)], known)


def test_the_losses_tell_optimizers_and_families_apart(known: dict[tuple[str, str], list[float]]) -> None:
    """The control to the test above."""
    adamw, muon = (reference({**USUAL, "optimizer": kind}, known) for kind in ("adamw", "muon"))
    other = reference({**USUAL, "family": "mixture"}, known)
    assert min(relative(muon, adamw), relative(other, adamw)) > 2 * OFF["bf16"]


def test_the_set_has_every_pair_of_choices() -> None:
    def pairs(combinations: list[Combination]) -> set[tuple[Any, ...]]:
        return set().union(*(pairs_of(combination) for combination in combinations))

    assert pairs(COVERING) == pairs(PLAIN)
    assert len(COVERING) < 50 < len(PLAIN)


@pytest.mark.parametrize("combination", FORBIDDEN, ids=name_of)
def test_what_is_forbidden_does_not_work_indeed(outcomes: Outcomes, combination: Combination) -> None:
    """It ends with an error; or it trains, and what was asked for does not happen."""
    assert conflicts(PretrainSpec(**spec_of(combination)))
    outcome = outcomes[name_of(combination)]
    assert "error" in outcome or (combination["offload_optimizer"] and not outcome["offloads"])


def test_each_rule_has_a_control() -> None:
    broken = [conflicts(PretrainSpec(**spec_of(combination))) for combination in FORBIDDEN]
    assert [rule for rules in broken for rule in rules if len(rules) != 1] == []
    assert {rules[0].choices for rules in broken} == {rule.choices for rule in RULES}


def test_what_failed_is_counted_and_shown_as_such() -> None:
    broken = COVERING[0]
    ran = {**COVERING[1], "losses_off": 0.0, "resumed_off": 0.0, "taken_over_off": 0.0}
    lines = [ran, {**broken, "error": "RuntimeError: no"}]
    assert len(failed(lines)) == 1
    assert "1 failed" in tables(lines)
    assert "1 trainings ran and 1 failed" in tables(lines)
    gone = record([broken], {})
    assert [line["error"] for line in gone] == ["it was not reached"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_everything_that_is_allowed_runs(tmp_path: Path, known: dict[tuple[str, str], list[float]]) -> None:
    found = run(PLAIN, tmp_path, PATH="")
    for combination in PLAIN:
        _check(combination, found[name_of(combination)], known)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_needs_a_compiler_runs_where_there_is_one(
    tmp_path: Path, known: dict[tuple[str, str], list[float]]
) -> None:
    try:
        check_tools(
            PretrainSpec(**spec_of({**USUAL, "engine": "deepspeed 1", "optimizer": "cpu_adam", "compile": True}))
        )
    except SetupError as error:
        pytest.skip(error.found)
    chosen = covering_set(COMPILED, COVERING)
    found = run(chosen, tmp_path)
    for combination in chosen:
        _check(combination, found[name_of(combination)], known)


def test_the_page_says_what_ran_and_what_the_rules_refuse() -> None:
    lines = json.loads(RECORD.read_text())
    assert tables(lines) == PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    recorded = [{name: line.get(name) for name in CHOICES} for line in lines]
    assert [line for line in recorded if conflicts(PretrainSpec(**spec_of(line)))] == []
    assert failed(lines) == []

"""What no rule forbids runs, learns what plain torch learns, and resumes; what a rule forbids does not work indeed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.compatibility import check_tools, conflicts
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
    name_of,
    needs_compiler,
    pairs_of,
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
FORBIDDEN = [{**USUAL, "engine": f"deepspeed {stage}", "optimizer": "muon"} for stage in (1, 2, 3)]

Outcomes = Mapping[str, Any]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What two ranks without a compiler made of the covering set, and of what is forbidden."""
    return run([*COVERING, *FORBIDDEN], tmp_path_factory.mktemp("combinations"), PATH="")


def _check(combination: Combination, outcome: Mapping[str, Any], known: dict[tuple[str, str], list[float]]) -> None:
    assert "error" not in outcome, outcome
    assert relative(outcome["losses"], reference(combination, known)) < OFF[combination["precision"]]
    off = relative(outcome["resumed"], outcome["losses"][SAVED_AFTER:])
    assert off <= (0 if combination["precision"] == "float32" else OFF["bf16"])


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], list[float]]:
    """Losses of plain torch, computed once for each optimizer and family."""
    return {}


@pytest.mark.parametrize("combination", COVERING, ids=name_of)
def test_what_is_allowed_learns_what_plain_torch_learns_and_resumes(
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
def test_what_is_forbidden_for_its_nature_fails_indeed(outcomes: Outcomes, combination: Combination) -> None:
    assert conflicts(PretrainSpec(**spec_of(combination)))
    assert "error" in outcomes[name_of(combination)]


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
    recorded = [{name: line[name] for name in CHOICES} for line in lines]
    assert [line for line in recorded if conflicts(PretrainSpec(**spec_of(line)))] == []

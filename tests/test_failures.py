"""The table of failures: every class has a remedy and a budget that is kept, and the documents print the same table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation_core.failures import FAILURES, Budgets, Remedy, table_rows, told
from foundation_core.specs import PipelineSpec, leaves

LIMITED = sorted(name for name, row in FAILURES.items() if row.budget is not None)
OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


def test_the_documents_print_the_table_that_is_in_force() -> None:
    assert "\n".join(table_rows()) in OPERATIONS.read_text()


def test_every_class_that_ends_a_job_says_what_to_do() -> None:
    assert [name for name, row in FAILURES.items() if not (row.known_by and row.to_do)] == []
    stops = {name for name, row in FAILURES.items() if row.remedy is Remedy.STOP}
    assert {name for name in stops if FAILURES[name].budget != 0} == set(), "what stops at once has nothing to spend"


def test_what_bounds_a_class_elsewhere_is_a_field_of_the_recipe() -> None:
    fields = {name for name, _ in leaves(PipelineSpec())}
    for row in FAILURES.values():
        names = re.findall("`([a-z_.]+)`", row.limit)
        section = names[0].rpartition(".")[0] if names else ""
        assert {f"{section}{name}" if name.startswith(".") else name for name in names} <= fields


@given(st.lists(st.sampled_from(LIMITED), max_size=40))
def test_a_class_is_borne_as_often_as_its_budget_says_whatever_else_fails(names: list[str]) -> None:
    budgets = Budgets()
    for place, name in enumerate(names):
        before, budget = names[:place].count(name), FAILURES[name].budget
        assert budget is not None
        assert budgets.left(name) == max(0, budget - before)
        assert budgets.spend(name) == (before < budget)
        assert budgets.spent(name) == before + 1
    budgets.renew()
    assert {name: budgets.left(name) for name in LIMITED} == {name: FAILURES[name].budget for name in LIMITED}


@pytest.mark.parametrize("name", sorted(set(FAILURES) - set(LIMITED)))
def test_a_class_without_a_limit_is_always_borne(name: str) -> None:
    budgets = Budgets()
    assert all(budgets.spend(name) for _ in range(100))
    assert budgets.left(name) is None


def test_an_event_is_told_with_its_class_step_words_and_what_is_left() -> None:
    event = {"kind": "failure", "failure": "lost_node", "step": 7, "what": "node abc is lost", "budget_left": 2}
    assert told(event) == "lost_node, step 7: node abc is lost; 2 more in a row would be borne"
    assert told({**event, "budget_left": None, "step": None}) == "lost_node: node abc is lost"
    back = {"kind": "recovered", "failure": "lost_node", "step": 8, "seconds": 21.6}
    assert told(back) == "recovered from lost_node after 22 s, step 8"


def test_names_are_words_that_metrics_and_tags_can_have() -> None:
    assert [name for name in FAILURES if not re.fullmatch("[a-z_]+", name)] == []

"""The covering set of faults and moments leaves none of them out, whatever its seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.apart import APART
from tests.chaos.cases import FAULTS, MOMENTS, covering, every_case
from tests.chaos.faults import FAULT


@given(st.integers(0, 2**32))
def test_every_fault_and_every_moment_is_in_the_covering_set(seed: int) -> None:
    cases = covering(seed)
    assert sorted(case.fault for case in cases) == sorted(FAULTS)
    assert {case.moment for case in cases} == set(MOMENTS)
    assert set(cases) <= set(every_case())
    assert min(sum(case.moment == moment for case in cases) for moment in MOMENTS) >= 2


def test_a_seed_gives_the_same_set_again_and_another_one_another() -> None:
    assert covering(3) == covering(3)
    assert covering(3) != covering(4)


def test_every_fault_can_be_made() -> None:
    assert sorted([*FAULT, *APART]) == sorted(FAULTS)

"""Three cases of `make chaos`, on the stack that the other tests of services use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from foundation_core.events import read_events
from tests.chaos.cases import Case
from tests.chaos.faults import FAULT
from tests.chaos.site import Site
from tests.support.stack import RunningStack

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(stack: RunningStack) -> Iterator[Site]:
    site = Site(stack)
    site.undisturbed("pretrain")
    yield site
    site.leave()


@pytest.mark.parametrize(
    "case",
    [Case("worker killed", "save"), Case("SIGTERM", "validation"), Case("checkpoint truncated", "step")],
    ids=str,
)
def test_whatever_happens_the_model_is_that_of_an_undisturbed_run(site: Site, case: Case) -> None:
    row = site.disturbed(case, FAULT[case.fault])
    assert row.problems == []
    folder = site.folder("pretrain")
    assert folder is not None
    log = [event for _, event in read_events(folder)]
    for kind in ("failure", "recovered"):
        classes = [event["failure"] for event in log if event["kind"] == kind]
        assert site.stack.told(site.run_id, kind, len(classes)) == classes
    shown = [artifact["key"] for artifact in site.stack.artifacts(site.run_id)]
    assert ("pretrain-failures" in shown) == any(event["kind"] == "failure" for event in log)

"""What a person does on Prefect's pages in a real Chromium: fills the form, watches, cancels, is refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import NEEDS_CHROMIUM, WAIT_MS, picture
from tests.support.stack import RunningStack

pytestmark = [pytest.mark.browser, pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(900), NEEDS_CHROMIUM]
START_SECONDS = 240
CANCEL_SECONDS = 30
STEPS = 401
T = TypeVar("T")


def test_a_person_runs_the_pipeline_from_its_form_and_reads_the_metrics(stack: RunningStack, page: Page) -> None:
    run_id = _submit(stack, page, "pipeline", STEPS)
    first = _until(lambda: _bar(page, stack, run_id), START_SECONDS)
    picture(page, "prefect-progress")
    assert _until(lambda: _bar(page, stack, run_id) not in ("", first), 60)
    ended = stack.wait_for(run_id, lambda run: run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED"), seconds=300)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]

    _artifacts(page, stack, run_id)
    link = page.get_by_role("link", name="pretrain in MLflow").first
    expect(link).to_be_visible(timeout=WAIT_MS)
    picture(page, "prefect-artifacts")
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    expect(page.get_by_text("Completed").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("M parameters, 2 workers").first).to_be_visible(timeout=WAIT_MS)  # a line of the job's log
    picture(page, "prefect-run")
    _artifacts(page, stack, run_id)
    page.goto(str(link.get_attribute("href")))
    expect(page.get_by_text("validation/bits_per_byte").first).to_be_visible(timeout=WAIT_MS)
    picture(page, "mlflow-form-run")

    made = {artifact["key"]: artifact["id"] for artifact in stack.artifacts(run_id)}
    page.goto(f"{stack.url('prefect')}/artifacts/artifact/{made['results']}")
    expect(page.get_by_text("transfer gain with few labels").first).to_be_visible(timeout=WAIT_MS)
    picture(page, "prefect-results")
    page.goto(f"{stack.url('prefect')}/artifacts/artifact/{made['transfer']}")
    drawn = page.locator("img[src*='get-artifact']").first
    expect(drawn).to_be_visible(timeout=WAIT_MS)
    _until(lambda: drawn.evaluate("image => image.naturalWidth > 100"), 30)
    picture(page, "prefect-picture")


def test_a_person_cancels_a_run_on_its_page(stack: RunningStack, page: Page) -> None:
    run_id = _submit(stack, page, "pretrain", 9000)
    _until(lambda: [a for a in stack.artifacts(run_id) if a["key"] == "pretrain-progress"], START_SECONDS)
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    page.get_by_role("button", name="Cancel").first.click(timeout=WAIT_MS)
    page.locator(".p-modal").get_by_role("button", name="Confirm").click(timeout=WAIT_MS)
    asked = time.monotonic()
    stack.wait_for(run_id, lambda run: run["state"]["type"] == "CANCELLED", seconds=90)
    assert time.monotonic() - asked < CANCEL_SECONDS
    expect(page.get_by_text("Cancelled").first).to_be_visible(timeout=WAIT_MS)


def test_a_person_suspends_a_run_and_resumes_it_on_its_page(stack: RunningStack, page: Page) -> None:
    run_id = _submit(stack, page, "pretrain", 1200)
    _until(lambda: [a for a in stack.artifacts(run_id) if a["key"] == "pretrain-progress"], START_SECONDS)
    _press(stack, page, run_id, "Suspend")
    stack.wait_for(run_id, lambda run: run["state"]["type"] == "PAUSED", seconds=90)
    _until(lambda: not stack.workers(), 60)
    _press(stack, page, run_id, "Resume")
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    expect(page.get_by_text("continuing from the checkpoint").first).to_be_visible(timeout=WAIT_MS)


def test_a_person_retries_a_failed_run_on_its_page_and_it_goes_on(stack: RunningStack, page: Page) -> None:
    run_id = _submit(stack, page, "pretrain", 900)
    _until(lambda: [a for a in stack.artifacts(run_id) if a["key"] == "pretrain-progress"], START_SECONDS)
    assert stack.place.run("stop", "pretrain").status == 0
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "FAILED", ended["state"]
    _press(stack, page, run_id, "Retry")
    stack.wait_for(run_id, lambda run: run["state"]["type"] != "FAILED", seconds=60)
    ended = stack.finish(run_id)
    assert ended["state"]["type"] == "COMPLETED", ended["state"]["message"]
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    expect(page.get_by_text("continuing from the checkpoint").first).to_be_visible(timeout=WAIT_MS)


def _press(stack: RunningStack, page: Page, run_id: str, name: str) -> None:
    """Press a button on a run's page, and the one that makes sure."""
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    page.get_by_role("button", name=name).first.click(timeout=WAIT_MS)
    picture(page, f"prefect-{name.lower()}")
    sure = re.compile(r"^\s*(Submit|Confirm|Resume|Retry)\s*$")
    page.locator(".p-modal").get_by_role("button", name=sure).click(timeout=WAIT_MS)


def test_a_person_is_told_what_is_wrong_with_a_value(stack: RunningStack, page: Page) -> None:
    run_id = _submit(stack, page, "pretrain", 30, others="--pretrain.nope 1")
    stack.wait_for(run_id, lambda run: run["state"]["type"] == "FAILED", seconds=90)
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    expect(page.get_by_text("pretrain.nope: unknown field").first).to_be_visible(timeout=WAIT_MS)


def _submit(stack: RunningStack, page: Page, flow: str, steps: int, others: str = "") -> str:
    """Fill a deployment's form as a person does; the id of the run that it made."""
    deployment = stack.ask("GET", f"/deployments/name/{flow}/{flow}")["id"]
    before = {run["id"] for run in _runs(stack)}
    page.goto(f"{stack.url('prefect')}/deployments/deployment/{deployment}/run")
    expect(page.get_by_text("Peak learning rate").first).to_be_visible(timeout=WAIT_MS)
    page.locator(".p-select-button__control").first.focus()
    page.keyboard.press("ArrowDown")
    page.locator(".p-select-option").first.click()
    page.locator("input[type=number]").first.fill(str(steps))
    if others:
        page.get_by_label("others").or_(page.locator("textarea, input[type=text]").last).last.fill(others)
    picture(page, f"prefect-form-{flow}")
    page.get_by_role("button", name="Submit").click()
    (run_id,) = _until(lambda: {run["id"] for run in _runs(stack)} - before, 60)
    return str(run_id)


def _runs(stack: RunningStack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.ask("POST", "/flow_runs/filter")
    return found


def _artifacts(page: Page, stack: RunningStack, run_id: str) -> None:
    page.goto(f"{stack.url('prefect')}/runs/flow-run/{run_id}")
    _until(lambda: _tab_of_artifacts(page), WAIT_MS / 1000)


def _tab_of_artifacts(page: Page) -> bool:
    """Press the tab, and look: a page that is still loading may go back to its first tab."""
    page.get_by_text("Artifacts", exact=True).first.click(timeout=WAIT_MS)
    return page.get_by_text("What this run will do").first.is_visible()


def _bar(page: Page, stack: RunningStack, run_id: str) -> str:
    """What the bar among the run's artifacts says, if it is there: so many steps of all."""
    if not any(artifact["key"] == "plan" for artifact in stack.artifacts(run_id)):
        return ""
    _artifacts(page, stack, run_id)
    found = re.search(rf"pretrain: (\d+) of {STEPS}", page.locator("body").inner_text())
    return found[1] if found else ""


def _until(found: Callable[[], T], seconds: float) -> T:
    """What a look at the page or the server finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.3)
    return value

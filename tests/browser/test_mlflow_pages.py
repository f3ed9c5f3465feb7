"""What a person sees in MLflow after a run: a real server over the data folder, a real Chromium on its pages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Page, expect

from cluster.embedded import free_port, wait_until_answers
from tests.support.browser import NEEDS_CHROMIUM, WAIT_MS, picture
from tests.support.workplace import Ended, Workplace

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300), NEEDS_CHROMIUM]


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Workplace:
    """A data folder with a finished pipeline: the one that FOUNDATION_HOME names, or the miniature."""
    if home := os.environ.get("FOUNDATION_SCREENSHOTS_OF"):
        return Workplace(Path(home), Path("recipes/quickstart.yaml"))
    finished: tuple[Workplace, Ended] = request.getfixturevalue("finished")
    return finished[0]


@pytest.fixture(scope="module")
def address(place: Workplace) -> Iterator[str]:
    """`foundation look` on a free port."""
    port = free_port()
    server = place.start("look", "--port", str(port))
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/health", server, "foundation look")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_the_pretraining_run_shows_its_figures_and_its_lineage(place: Workplace, address: str, page: Page) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("foundation").experiment_id
    run = client.search_runs([experiment], "tags.`foundation.stage` = 'pretrain'")[0]
    page.goto(f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}")
    expect(page.get_by_text("Finished").first).to_be_visible(timeout=WAIT_MS)
    for shown in ("validation/bits_per_byte", "foundation.action_key", "foundation.ray_job", "corpus"):
        expect(page.get_by_text(re.compile(re.escape(shown))).first).to_be_attached(timeout=WAIT_MS)
    picture(page, "mlflow-run")
    close = page.get_by_role("button", name="Close")
    if close.count():
        close.first.click()  # the assistant that MLflow opens beside every page
    page.goto(f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}/model-metrics")
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=WAIT_MS)
    picture(page, "mlflow-metrics")


def test_the_registered_model_has_its_alias(place: Workplace, address: str, page: Page) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{place.home / 'mlflow.db'}")
    name = client.search_registered_models()[0].name
    page.goto(f"{address}/#/models/{name}")
    expect(page.get_by_text("candidate").first).to_be_visible(timeout=WAIT_MS)
    picture(page, "mlflow-model")

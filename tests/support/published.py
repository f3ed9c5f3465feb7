"""A data folder with a published model, small and with random weights: what `foundation run` would leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from foundation_core.specs import PublishSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.publish import publish
from foundation_core.tracking.mlflow import MlflowRuns
from tests.support.publishable import publishable
from tests.support.workplace import Workplace


@dataclass(frozen=True)
class PublishedPlace(Workplace):
    """A data folder in whose registry `tiny` has two versions: the first is @candidate, the second is the latest."""

    model_folder: Path = Path()

    @property
    def tracking_uri(self) -> str:
        """The store."""
        return f"sqlite:///{self.home / 'mlflow.db'}"


@pytest.fixture(scope="session")
def published_place(tmp_path_factory: pytest.TempPathFactory, serial_context: Callable[..., Context]) -> PublishedPlace:
    """A data folder with a published model; tests do not change it."""
    home = tmp_path_factory.mktemp("published")
    place = PublishedPlace(home, home / "none.yaml", home / "stage" / "model")
    runs = MlflowRuns(place.tracking_uri, home / "mlflow-artifacts", "foundation")
    pipeline = runs.open_pipeline("tiny", "pipeline key", {}, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDATION_TRACKING_URI", place.tracking_uri)
        patch.setenv("FOUNDATION_RUN_ID", runs.open_stage(pipeline, "publish", "publish key", {}, {}))
        inputs = publishable(tmp_path_factory.mktemp("stages"), serial_context)
        publish(PublishSpec(model_name="tiny"), inputs, serial_context(home / "stage"))
    client = MlflowClient(tracking_uri=place.tracking_uri, registry_uri=place.tracking_uri)
    first = client.get_model_version("tiny", "1")
    client.create_model_version("tiny", first.source, first.run_id)
    return place

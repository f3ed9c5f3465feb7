"""Where things are: one data folder, and the services that are configured rather than embedded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What the environment says; every name starts with FOUNDATION_.

    Args:
        home: folder of all data (FOUNDATION_HOME, `data` in the current folder).
        ray_dashboard: address of a running Ray cluster's dashboard (FOUNDATION_RAY_ADDRESS); empty: one is started.
        tracking_uri: MLflow server or database (FOUNDATION_MLFLOW_URI); empty: SQLite below the home.
        recipes: folder of the recipes that forms offer (FOUNDATION_RECIPES, `recipes` in the current folder).
        git_commit: of the source, where that came without its repository (FOUNDATION_GIT_COMMIT).
    """

    home: Path
    ray_dashboard: str = ""
    tracking_uri: str = ""
    recipes: Path = Path("recipes")
    git_commit: str = ""

    @staticmethod
    def from_environment() -> Settings:
        """The settings of this process."""
        return Settings(
            home=Path(os.environ.get("FOUNDATION_HOME", "data")).absolute(),
            ray_dashboard=os.environ.get("FOUNDATION_RAY_ADDRESS", ""),
            tracking_uri=os.environ.get("FOUNDATION_MLFLOW_URI", ""),
            recipes=Path(os.environ.get("FOUNDATION_RECIPES", "recipes")).absolute(),
            git_commit=os.environ.get("FOUNDATION_GIT_COMMIT", ""),
        )

    @property
    def results(self) -> Path:
        """Stage folders."""
        return self.home / "results"

    @property
    def mlflow_uri(self) -> str:
        """Where runs are logged."""
        return self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path | None:
        """Where artifacts go when there is no MLflow server that keeps them."""
        return None if self.tracking_uri else self.home / "mlflow-artifacts"

    @property
    def logs(self) -> Path:
        """What the started processes print."""
        return self.home / "logs"


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))

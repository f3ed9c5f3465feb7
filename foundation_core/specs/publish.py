"""Where a model is registered."""

from __future__ import annotations

from pydantic import Field

from foundation_core.specs.base import Spec


class PublishSpec(Spec):
    """Package, check, log, register."""

    model_name: str = Field("foundation-quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in the model registry."""
    alias: str = Field("candidate", pattern=r"^[a-z][a-z0-9_-]*$")
    """Alias that points to the new version."""

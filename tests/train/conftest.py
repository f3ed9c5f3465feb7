"""One corpus for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training import write_corpus


@pytest.fixture(scope="session")
def token_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token data set of documents of very unequal lengths."""
    return write_corpus(tmp_path_factory.mktemp("tokens") / "train")

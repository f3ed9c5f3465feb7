"""One corpus for all training tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults import poisoned_corpus
from tests.support.training import Trained, Training, write_corpus


@pytest.fixture(scope="session")
def token_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token data set of documents of very unequal lengths."""
    return write_corpus(tmp_path_factory.mktemp("tokens") / "train")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of which document 17 is poisoned."""
    return poisoned_corpus(tmp_path_factory.mktemp("poisoned") / "train", (17,))


@pytest.fixture(scope="session")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Twelve steps on it by what poison does not harm."""
    return Training(tmp_path_factory.mktemp("undisturbed"), corpus, steps=12).run()

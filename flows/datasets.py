"""Data sets as people name them: a folder, or a result of the data folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from foundation_core.errors import ConfigError

NAME = "the folder of an ingest result, or a name that `foundation runs` shows: ingest (the newest), digits of a key"


def take_dataset(parser: argparse.ArgumentParser) -> None:
    """Let a command take a data set."""
    parser.add_argument("dataset", metavar="DATASET", help=NAME)


def find_dataset(name: str) -> Path:
    """The folder that a person means: a path as it is, or a result of the data folder.

    Raises:
        ConfigError: there is neither a folder nor a result of that name.
    """
    path = Path(name).expanduser()
    if path.exists() or len(path.parts) > 1:
        return path.absolute()
    from cluster.runs import matches
    from cluster.settings import Settings

    settings = Settings.from_environment()
    found = [folder for folder in matches(settings.results, name) if folder.parent.name == "ingest"]
    if len(found) != 1:
        some = ", ".join(folder.name for folder in (found or sorted((settings.results / "ingest").glob("*")))[:8])
        raise ConfigError(
            f"{name!r} is no folder, and {len(found) or 'no'} ingest result{'s' * (len(found) > 1)} of {settings.home}",
            allowed=f"{NAME}; there are: {some or 'none'}",
        )
    return found[0]

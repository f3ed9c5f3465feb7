"""Empty databases kept beside the installation: making a tool's tables takes longer than all else at its start.

first run:  the tool makes its tables -> keep
later runs, in an empty data folder:  fill -> the tool finds its tables
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path


class DatabaseTemplate:
    """The SQLite database of one version of a tool before anything was written to it.

    It lies in the virtual environment, so it goes when that goes. Where nothing can be written there, there is none.

    Args:
        tool: name of its distribution; another version has another template.
    """

    def __init__(self, tool: str, folder: Path | None = None) -> None:
        self.path = (folder or Path(sys.prefix) / "var" / "foundation") / f"{tool}-{version(tool)}.db"

    def fill(self, database: Path) -> None:
        """Put a copy where a database is wanted, if there is none yet."""
        if self.path.exists() and not database.exists():
            database.parent.mkdir(parents=True, exist_ok=True)
            partial = database.with_name(f"{database.name}.{os.getpid()}.partial")
            shutil.copyfile(self.path, partial)
            os.replace(partial, database)

    def keep(self, database: Path) -> None:
        """Make the template from a database that its tool has just made, if there is no template yet."""
        if self.path.exists():
            return
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        with suppress(OSError, sqlite3.Error):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(partial)) as target:
                source.backup(target)
            os.replace(partial, self.path)

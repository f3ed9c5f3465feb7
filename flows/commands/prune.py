"""`foundation prune`: gives back the room of units of work that no ingestion has used for a while."""

from __future__ import annotations

import argparse
import time

DAYS = 30
_DAY_SECONDS = 86_400


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """How long a unit may lie unused, and whether to remove."""
    parser.add_argument("--days", type=_days, default=DAYS, help=f"remove what was last used before so many ({DAYS})")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, only say what would be removed")


def run(arguments: argparse.Namespace) -> int:
    """Remove them, and say in a sentence what that gave; results stay as they are."""
    from cluster.settings import Settings
    from foundation_core.data.units.store import prune
    from foundation_core.store import UNITS_FOLDER

    root = Settings.from_environment().results / UNITS_FOLDER
    pruned = prune(root, time.time() - arguments.days * _DAY_SECONDS, remove=not arguments.dry_run)
    does = "would remove" if arguments.dry_run else "removed"
    print(
        f"{does} {pruned.removed:,} units of {pruned.removed_bytes / 1e6:,.1f} MB, unused for {arguments.days:g} days;"
        f" {pruned.left:,} of {pruned.left_bytes / 1e6:,.1f} MB {'would stay' if arguments.dry_run else 'are left'}"
    )
    return 0


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days < float("inf"):
        raise ValueError(text)
    return days

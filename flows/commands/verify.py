"""`foundation verify`: whether every file of a data set still is what its manifest says."""

from __future__ import annotations

import argparse

from flows.datasets import find_dataset, take_dataset

DAMAGED = 1


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """Which data set."""
    take_dataset(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read every file, and say in a sentence whether all is well; 1 if anything is damaged."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from foundation_core.pages.verifying import bytes_to_verify, verify

    folder = find_dataset(arguments.dataset)
    total = bytes_to_verify(folder)
    console = Console()
    parts = (TextColumn("{task.description}"), BarColumn(bar_width=32), DownloadColumn(), TimeRemainingColumn())
    files, read, damages = 0, 0, list[str]()
    with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("verify", total=total)
        for checked in verify(folder):
            files, read = files + 1, read + checked.bytes
            bar.update(task, completed=min(read, total), description=checked.path.parent.name)
            if checked.damage:
                damages.append(checked.damage)
    for damage in damages:
        print(damage)
    if damages:
        print(f"{len(damages)} of {files} files are damaged: remove {folder} and run the ingest stage again")
        return DAMAGED
    print(f"{folder} is whole: {files} files, {read:,} bytes, each with the hash that it should have")
    return 0

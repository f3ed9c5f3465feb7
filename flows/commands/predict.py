"""`foundation predict`: the classes of the texts in a table, by a published model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from flows.arguments import at_least
from foundation_core.errors import ConfigError

if TYPE_CHECKING:
    from cluster.predict import Request, Summary
    from cluster.settings import Settings

RAY_ABOVE_ROWS = 50_000
"""Below it, starting a cluster is not worth its time. A guess that nobody measured yet."""


def configure(parser: argparse.ArgumentParser, name: str) -> None:
    """The model, the table, and where the predictions go."""
    parser.add_argument("model", help="NAME (its @candidate, or its latest version), NAME@alias, NAME/3, or a folder")
    parser.add_argument("file", type=Path, help="a table: .csv, .jsonl (also .gz) or .parquet")
    parser.add_argument(
        "--out", type=Path, help="its ending says the format (FILE with .predictions before the ending)"
    )
    parser.add_argument("--text-field", default="text", help="column that holds the texts (text)")
    parser.add_argument("--batch-rows", type=at_least(1, int), default=256, help="rows held in memory at a time (256)")
    parser.add_argument(
        "--ray-above-rows", type=at_least(0, int), default=RAY_ABOVE_ROWS,
        help=f"a table of more rows goes to Ray; so does any, if a cluster is there ({RAY_ABOVE_ROWS})",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for a script")


def run(arguments: argparse.Namespace) -> int:
    """Write the table with predictions, and print how many there are of each class."""
    from cluster.predict import Request
    from cluster.settings import Settings
    from cluster.stack import Stack
    from foundation_core.data.tables.batches import has_more_rows
    from foundation_core.tracking.registry import model_files

    start = time.perf_counter()
    os.environ.update(Stack(Settings.from_environment()).environment())
    settings = Settings.from_environment()
    source, out = arguments.file.absolute(), _out(arguments.file, arguments.out)
    on_ray = has_more_rows(source, arguments.ray_above_rows) or bool(settings.ray_dashboard)
    with model_files(arguments.model, settings.mlflow_uri, settings.home if on_ray else None) as folder:
        request = Request(str(folder), str(source), str(out), arguments.text_field, arguments.batch_rows)
        summary = _predict(request, settings, on_ray=on_ray)
    _print(summary, out, time.perf_counter() - start, "Ray" if on_ray else "this process", as_json=arguments.json)
    return 0


def _out(source: Path, wanted: Path | None) -> Path:
    """Where the predictions go.

    Raises:
        ConfigError: no table by its name, or the source itself.
    """
    from foundation_core.data.tables.files import table_format

    _, packed = table_format(source)
    endings = "".join(source.suffixes[-2:] if packed else source.suffixes[-1:])
    out = wanted or source.with_name(source.name.removesuffix(endings) + ".predictions" + endings)
    table_format(out)
    if out.resolve() == source.resolve():
        raise ConfigError(f"--out {out} is the table that is read", fix="name another file")
    return out.absolute()


def _predict(request: Request, settings: Settings, *, on_ray: bool) -> Summary:
    from cluster.predict import predict, predict_on_ray

    def report(rows: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{rows:,} rows", end="", file=sys.stderr, flush=True)

    if not on_ray:
        return predict(request, map, report)
    settings.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="predict-", dir=settings.home) as folder:
        return predict_on_ray(request, settings, Path(folder), report)


def _print(summary: Summary, out: Path, seconds: float, where: str, *, as_json: bool) -> None:
    speed = summary.rows / seconds
    if as_json:
        told = {"rows": summary.rows, "nulls": summary.nulls, "classes": summary.classes, "out": str(out)}
        print(json.dumps({**told, "seconds": round(seconds, 3), "rows_per_second": round(speed, 1), "where": where}))
        return
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    print(
        f"{summary.rows:,} rows in {seconds:.1f} s ({speed:,.0f} a second) by {where}; {summary.nulls:,} without text"
    )
    for name, count in summary.classes.items():
        print(f"{count:>10,}  {name}")
    print(f"written   {out}")

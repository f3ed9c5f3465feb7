"""Where an experiment's figures and pictures go."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from foundation_core.evaluate.style import BLUE, GREEN, GREY, INK, ORANGE, STYLE

DOCS = Path(__file__).parents[1] / "docs"
NUMBERS = DOCS / "experiments.json"
COLORS = (BLUE, ORANGE, GREEN, "#8a4fa3", "#b5413f", GREY)
SIGNIFICANT_DIGITS = 5

__all__ = ["BLUE", "COLORS", "GREEN", "GREY", "INK", "ORANGE", "keep", "picture"]


def keep(experiment: str, figures: Mapping[str, Any]) -> None:
    """Print an experiment's figures and put them in place of its earlier ones in docs/experiments.json."""
    rounded = _rounded({**figures, "machine": _machine()})
    print(f"{experiment}: {json.dumps(rounded, indent=1, ensure_ascii=False)}", flush=True)
    known = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    known[experiment] = rounded
    NUMBERS.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")


@contextmanager
def picture(name: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (8, 4.5)) -> Iterator[Any]:
    """Axes in the common style, one or an array of them, saved as docs/images/transformer/NAME.png when the block ends.

    Args:
        size: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"axes.titlesize": 12, "savefig.dpi": 110}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(rows, columns)
        path = DOCS / "images" / "transformer" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return {"processor": processor, "threads": torch.get_num_threads(), "torch": torch.__version__}

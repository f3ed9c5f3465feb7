"""Every experiment, one after the other: `python -m experiments.all [FILE]`.

Args:
    FILE: a text for the experiment on length, in place of Python's standard library.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from experiments import depth, heads, length, prefixes, recall, translation


def main(text: Path | None) -> None:
    """Run them all and say what each took."""
    for experiment in (prefixes, translation, heads, recall, depth):
        start = time.perf_counter()
        experiment.run()
        print(f"{experiment.__name__}: {time.perf_counter() - start:.0f} s", flush=True)
    length.run(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

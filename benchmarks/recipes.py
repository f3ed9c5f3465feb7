"""Every recipe from its raw data to a registered model, and what it reached: `python -m benchmarks.recipes [NAME ...]`.

    recipe -> `foundation run`, in a data folder of its own -> seconds, scores, baseline -> docs/recipes.json
    docs/recipes.json -> docs/recipes.md

Recipes that are not named keep what is on record. A recipe whose data is not on this machine is left out with a word.
`--page` only writes the page anew. `--busy` says that something else uses the machine: scores are what they are, and
the seconds are not held against the bar. Ends with 1 if a recipe failed, or missed the bar of its scores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.core.timing import machine
from foundation_core.store import load_result

ROOT = Path(__file__).parents[1]
RECORD, PAGE = ROOT / "docs" / "recipes.json", ROOT / "docs" / "recipes.md"
BAR_SECONDS = 360
BARS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "digits": (("arms", "pretrained-all", "accuracy", "mean"), 0.96),
    "digits_captions": (("zero_shot", "templates"), 0.85),
    "spoken_digits": (("arms", "pretrained-all", "accuracy", "mean"), 0.95),
}
"""A figure of the evaluation, by its place in the summary, and what it must reach."""
KEPT = ("deciding", "scored", "gain", "baseline", "zero_shot", "retrieval", "test")
HEAD = """# What the recipes reach

`python -m benchmarks.recipes` runs them one after the other, keeps what they reached in `docs/recipes.json`,
and writes this page from it. Scores are of the test split: the mean of three seeds, and the lowest and highest
of them. *Gain* is pretrained less scratch; it is beyond the spread if the worst pretrained seed is better than
the best one from scratch. Recipes choose learning rates on the validation split alone; [decision
19](decisions/0019-how-the-other-recipes-were-chosen.md) says which of them were changed after their test had
been seen. Seconds are those of the whole command, services included; the bar is six minutes on two cores.
Figures differ by machine: one with bfloat16 trains in bf16, and the README shows such a run.
"""


def main() -> int:
    """Run what was asked for; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    known = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    parser.add_argument("name", nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--page", action="store_true", help="run nothing")
    parser.add_argument("--busy", action="store_true", help="the machine has other work, too")
    given = parser.parse_args()
    if unknown := set(given.name) - set(known):
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    failed = 0
    for name in [] if given.page else given.name or known:
        if missing := missing_data(ROOT / "recipes" / f"{name}.yaml"):
            print(f"{name}: left out, {missing} is not there", flush=True)
            continue
        entry = run(name)
        failed += entry is None or missed(name, entry)
        if entry is not None:
            record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
            record[name] = {**entry, "busy": True} if given.busy else entry
            RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n")
            print(f"{name}: {entry['seconds']:.0f} s", flush=True)
    PAGE.write_text(page(json.loads(RECORD.read_text())))
    return int(failed > 0)


def missing_data(recipe: Path) -> str:
    """The file or folder that a recipe reads and that is not here; empty if it is."""
    path = yaml.safe_load(recipe.read_text())["ingest"]["source"].get("path", "")
    return "" if not path or "://" in path or (ROOT / path).exists() else path


def run(name: str) -> dict[str, Any] | None:
    """What a recipe reached; None if it failed, which is said."""
    about = machine()
    with tempfile.TemporaryDirectory(prefix=f"recipe-{name}-") as home:
        command = [str(Path(sys.executable).with_name("foundation")), "run", name]
        start = time.perf_counter()
        environment = {**os.environ, "FOUNDATION_RECIPES": str(ROOT / "recipes"), "FOUNDATION_HOME": home}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            print(f"{name}: failed with {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}", flush=True)
            return None
        summary = {stage: _summary(Path(home), stage) for stage in ("pretrain", "finetune", "evaluate", "publish")}
    scored = summary["evaluate"] or summary["finetune"]
    entry = {key: scored[key] for key in KEPT if key in scored}
    arms = {arm: {kind: _spread(found[kind]) for kind in scored["scored"]} for arm, found in scored["arms"].items()}
    trained = {key: summary["pretrain"][key] for key in ("parameters", "steps", "precision", "best_validation")}
    model = f"{summary['publish']['model_name']} version {summary['publish']['version']}"
    return {"machine": about, "seconds": round(seconds), "pretrain": trained, "arms": arms, **entry, "model": model}


def missed(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a recipe has a bar for its scores and is below it."""
    place, bar = BARS.get(name, ((), 0.0))
    return bool(place) and reached(entry, place) < bar


def _summary(home: Path, stage: str) -> dict[str, Any]:
    for path in (home / "results" / stage).glob("*/result.json"):
        return dict(load_result(path.parent).summary)
    return {}


def _spread(found: Mapping[str, Any]) -> dict[str, float]:
    return {key: round(found[key], 4) for key in ("mean", "min", "max")}


def page(record: Mapping[str, Any]) -> str:
    """The page of a record."""
    lines = [HEAD]
    lines += ["| recipe | s | score | labels | pretrained | from scratch | gain | plain baseline |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name, entry in record.items():
        lines += _rows(name, entry)
    lines += ["", "Beside these:", ""]
    lines += [f"- {name}: {sentence}" for name, entry in record.items() for sentence in _sentences(name, entry)]
    machines = sorted({entry["machine"].partition(";")[0] for entry in record.values()})
    lines += ["", "Machines:", "", *(f"- {one}: {', '.join(_names(record, one))}" for one in machines)]
    return "\n".join(lines) + "\n"


def _names(record: Mapping[str, Any], one: str) -> list[str]:
    return [name for name, entry in record.items() if entry["machine"].partition(";")[0] == one]


def _rows(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    kind = entry["deciding"]
    label, baseline = entry["scored"][kind]["label"], entry.get("baseline", {})
    for labels, gain in entry.get("gain", {}).items():
        pretrained, scratch = (_told(entry["arms"][f"{arm}-{labels}"][kind]) for arm in ("pretrained", "scratch"))
        plain = f"{baseline[labels][kind]:.3f} ({baseline['label']})" if labels in baseline else ""
        beyond = "beyond the spread" if gain["beyond_spread"] else "within the spread"
        told = f"{gain['mean_difference']:+.3f}, {beyond}"
        yield f"| {name} | {entry['seconds']} | {label} | {labels} | {pretrained} | {scratch} | {told} | {plain} |"


def _told(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.3f} ({found['min']:.3f} to {found['max']:.3f})"


def _sentences(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    trained = entry["pretrain"]
    size, steps, precision = trained["parameters"] / 1e6, trained["steps"], trained["precision"]["name"]
    yield f"{size:.2f} M parameters, {steps} steps in {precision}; {entry['model']}; {_in_time(entry)}"
    if name in BARS:
        place, bar = BARS[name]
        value = reached(entry, place)
        yield f"{' '.join(place)} {value:.3f} (bar {bar}) {'MISSED' if missed(name, entry) else 'met'}"
    for question in ("zero_shot", "retrieval"):
        if question in entry:
            figures = {key: value for key, value in entry[question].items() if isinstance(value, float)}
            told = ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in figures.items())
            yield f"{question.replace('_', '-')}: {told}"


def _in_time(entry: Mapping[str, Any]) -> str:
    if entry.get("busy"):
        return f"{entry['seconds']} s beside other work, not held against the bar of {BAR_SECONDS}"
    return f"{entry['seconds']} s (bar {BAR_SECONDS}) {'met' if entry['seconds'] <= BAR_SECONDS else 'MISSED'}"


def reached(entry: Mapping[str, Any], place: tuple[str, ...]) -> float:
    """A figure by its place."""
    found: Any = entry
    for key in place:
        found = found[key]
    return float(found)


if __name__ == "__main__":
    sys.exit(main())

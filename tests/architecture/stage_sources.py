"""What a stage's code version stands for: a digest of all source that the stage can reach.

Run as a program, it records the digests beside this file: `python tests/architecture/stage_sources.py`. Do so after
you raised a version in foundation_core/identity.py, or when you are sure that the change cannot alter a result.
"""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("stage_sources.json")
STAGES = ("ingest", "pretrain", "finetune", "evaluate", "publish")
FOUND_BY_NAME = {
    "ingest": ("sources", "modalities", "measures", "formats"),
    "finetune": ("tasks",),
    "evaluate": ("tasks",),
    "publish": ("tasks",),
}
"""Groups of entry points whose modules a stage loads by name: it reaches them as if it imported them."""


def source_digest(stage: str) -> str:
    """A digest over every module of the library that a stage imports or finds by name; docstrings do not count."""
    reached: set[Path] = set()
    waiting = [ROOT / "foundation_core" / "stages" / f"{stage}.py", *_found_by_name(stage)]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        waiting += _imports(path)
    whole = hashlib.sha256()
    for path in sorted(reached):
        whole.update(str(path.relative_to(ROOT)).encode() + b"\0" + _meaning(path).encode() + b"\0")
    return whole.hexdigest()


def _found_by_name(stage: str) -> list[Path]:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    named = [target for group in FOUND_BY_NAME.get(stage, ()) for target in points[f"foundation.{group}"].values()]
    return [ROOT / (target.partition(":")[0].replace(".", "/") + ".py") for target in named]


def _imports(path: Path) -> list[Path]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            place = ROOT / name.replace(".", "/")
            if name.startswith("foundation_core."):
                found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()]
    return found


def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def record() -> None:
    """Write today's versions and digests."""
    from foundation_core.identity import CODE_VERSIONS

    body = {stage: {"version": CODE_VERSIONS[stage], "source": source_digest(stage)} for stage in STAGES}
    RECORD.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    record()

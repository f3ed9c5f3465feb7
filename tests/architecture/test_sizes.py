"""The size ratchet: a file under 400 lines, a function under 80, with at most 8 parameters. It only falls."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("foundation_core", "cluster", "flows", "benchmarks", "experiments", "tests")
FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 80, 8
MODEL_LINES = 1500


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_files_fit_on_a_few_screens() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in _sources()}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > FILE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in _sources()
        for node in _functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_functions_take_few_parameters() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in _sources()
        for node in _functions(path)
        if len([a for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] if a.arg != "self"])
        > PARAMETERS
    ]
    assert wide == []


def test_the_model_stays_small() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "foundation_core" / "model").rglob("*.py"))
    assert lines < MODEL_LINES

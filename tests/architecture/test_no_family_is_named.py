"""What a family needs, its parts say: nothing asks for it by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "foundation_core"
ASKED = [path for folder in ("model", "objectives", "train", "stages") for path in (LIBRARY / folder).rglob("*.py")]


def asks_for_a_family(source: str) -> bool:
    """Whether something called family is compared with anything."""
    sides = [
        side
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare | ast.Match)
        for side in ([node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject])
    ]
    return any(ast.unparse(side).split(".")[-1] == "family" for side in sides)


@pytest.mark.parametrize("path", ASKED, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_family_is_asked_for_by_name(path: Path) -> None:
    assert not asks_for_a_family(path.read_text())


@pytest.mark.parametrize(
    "line",
    ["if spec.family == 'encoder': pass", "x = family in ('decoder',)", "match spec.model.family:\n case _: pass"],
)
def test_who_does_is_found(line: str) -> None:
    assert asks_for_a_family(line)

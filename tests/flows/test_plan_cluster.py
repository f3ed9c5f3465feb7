"""`foundation plan --cluster`: a table and JSON that agree, and refusals with exit status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main

ROOT = Path(__file__).parents[2]
NODE = str(ROOT / "infra/clusters/h100_node.yaml")
QUICKSTART = str(ROOT / "recipes/quickstart.yaml")
TRUNK = {"width": 8192, "heads": 64, "depth": 8}
LARGE = ["--pretrain.batch_rows=64", *(f"--pretrain.model.trunk.{name}={size}" for name, size in TRUNK.items())]


def test_the_table_and_the_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", QUICKSTART, "--cluster", NODE]) == 0
    table = capsys.readouterr().out
    assert main(["plan", QUICKSTART, "--cluster", NODE, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [way["name"] for way in body["ways"]] == [
        line[2:].split("  ")[0] for line in table.splitlines() if line[2:].startswith(("ZeRO", "torch"))
    ]
    assert f"> {body['recommended']}" in table
    assert all(way["fits"] and way["step"]["products"] > 0 for way in body["ways"])


def test_what_does_not_fit_is_shown_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", QUICKSTART, "--cluster", NODE, *LARGE, "--pretrain.zero_stage", "0"]) == 2
    shown = capsys.readouterr()
    assert "does not fit" in shown.out
    assert "the recipe trains with ZeRO 0, which needs" in shown.err
    assert main(["plan", QUICKSTART, "--cluster", NODE, *LARGE, "--pretrain.zero_stage", "3"]) == 0


def test_why_takes_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", QUICKSTART, "--cluster", NODE]) == 2
    assert "cluster" in capsys.readouterr().err

"""The table of a sweep: the best first, the failed ones last, and the command that makes a model of the best."""

from __future__ import annotations

import pytest

from cluster.sweep import Outcome, Point, Sweep
from flows.summary import print_sweep, sweep_rows
from foundation_core.specs import PipelineSpec
from foundation_core.tracking.base import leading

OUTCOMES = [
    Outcome("0.001", leading({"loss_nats": 2.5, "bits_per_byte": 1.75}), 480),
    Outcome("9", failure="the training loss is [nan]"),
    Outcome("0.002", leading({"loss_nats": 2.4, "bits_per_byte": 1.625}), 400),
]
SWEEP = Sweep("pretrain.optimizer.lr", "pretrain", (Point("0.001", PipelineSpec(), ""),))


def test_the_best_comes_first_and_the_failed_ones_last() -> None:
    rows = sweep_rows(OUTCOMES)
    assert [row["value"] for row in rows] == ["0.002", "0.001", "9"]
    assert [row["verdict"] for row in rows] == ["best", "", "failed: the training loss is [nan]"]
    assert [row["validation"] for row in rows] == ["1.6250 bits/byte", "1.7500 bits/byte", ""]


def test_nothing_is_best_where_everything_failed(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep(SWEEP, [OUTCOMES[1]], ["quickstart"], nothing_done=False)
    printed = capsys.readouterr().out
    assert "failed: the training loss is [nan]" in printed
    assert "best" not in printed
    assert "winner" not in printed


def test_the_winner_can_be_run_by_copying_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_sweep(SWEEP, OUTCOMES, ["my recipes/a.yaml", "--finetune.lr", "[0.001]"], nothing_done=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("winner")]
    assert line.split(maxsplit=1)[1] == (
        "foundation run 'my recipes/a.yaml' --finetune.lr '[0.001]' --pretrain.optimizer.lr 0.002"
    )

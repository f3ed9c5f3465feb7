"""Objectives from outside: next token, but for losses that are not a number when a file asks for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from foundation_core.objectives.base import ALONE, Example, Ranks, Request
from foundation_core.objectives.language import NextToken


class NextTokenWithOneNaN(NextToken):
    """Next token; whoever removes the file `chaos-nan` of the data folder, rank or step, gets one NaN for it."""

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The loss; in training, once, not a number."""
        real = super().loss(model, example, ranks)
        mark = Path(os.environ["FOUNDATION_HOME"]) / "chaos-nan"
        if not model.training or not mark.exists():
            return real
        try:
            mark.unlink()
        except FileNotFoundError:  # another rank was faster
            return real
        return real * float("nan")


def next_token_with_one_nan(request: Request) -> NextToken:
    """The objective `next_token_with_one_nan`."""
    request.need_tokens()
    return NextTokenWithOneNaN()


class NextTokenWithABadDocument(NextToken):
    """Next token; NaN in training where a run of tokens that the file `chaos-document` names is read."""

    def loss(self, model: nn.Module, example: Example, ranks: Ranks = ALONE) -> Tensor:
        """The loss, or NaN."""
        real = super().loss(model, example, ranks)
        mark = Path(os.environ["FOUNDATION_HOME"]) / "chaos-document"
        if not torch.is_grad_enabled() or not mark.exists():
            return real
        bad = {tuple(run) for run in json.loads(mark.read_text())}
        runs_BPN = example.inputs["inputs"].unfold(1, len(next(iter(bad))), 1)
        met = any(tuple(run) in bad for run in runs_BPN.flatten(0, 1).tolist())
        return real * float("nan") if met else real


def next_token_with_a_bad_document(request: Request) -> NextToken:
    """The objective `next_token_with_a_bad_document`."""
    request.need_tokens()
    return NextTokenWithABadDocument()

"""Nearest neighbours on a sphere, counted."""

import pytest
import torch
from torch.nn import functional as F

from foundation_core.evaluate.pairs import class_vectors, recall

AXES = torch.eye(4)


def test_recall_counts_queries_that_find_one_of_their_name():
    queries = F.normalize(AXES[[0, 1, 2]] + 0.5 * AXES[[1, 2, 3]], dim=-1)
    names = ["a", "b", "c", "d"]
    assert recall(queries, AXES, ["a", "b", "c"], names, among=1) == 1
    assert recall(queries, AXES, ["b", "c", "c"], names, among=1) == pytest.approx(1 / 3)
    assert recall(queries, AXES, ["b", "c", "d"], names, among=2) == 1
    assert recall(queries, AXES, ["d", "d", "d"], names, among=5) == 1, "five of four are all"


def test_candidates_of_one_name_are_one_answer():
    assert recall(AXES[:1], AXES, ["same"], ["other", "same", "same", "x"], among=2) == 1
    assert recall(AXES[:1], AXES, ["same"], ["other", "same", "same", "x"], among=1) == 0


def test_a_class_is_the_mean_direction_of_its_captions():
    found = class_vectors({"a": AXES[:2], "b": AXES[2:3]})
    torch.testing.assert_close(found, torch.stack([(AXES[0] + AXES[1]) / 2**0.5, AXES[2]]))

"""The timed product."""

import pytest
import torch

from foundation_core.evaluate import speed
from foundation_core.evaluate.speed import matmul_flops_per_second


def test_the_best_of_five_products_is_counted_with_two_operations_a_pair(monkeypatch):
    seconds = iter([4.0, 2.0, 3.0, 5.0, 2.5])
    monkeypatch.setattr(speed, "_product_seconds", lambda dtype, size, device: next(seconds))
    assert matmul_flops_per_second(torch.float32, size=10) == 2 * 10**3 / 2.0
    assert next(seconds, None) is None


def test_a_real_product_takes_time_and_leaves_the_threads_as_they_were():
    threads = torch.get_num_threads()
    assert matmul_flops_per_second(torch.float32, size=64) > 0
    assert torch.get_num_threads() == threads


def test_the_device_that_is_named_multiplies_whatever_else_is_there(monkeypatch):
    """On `meta`, which computes nothing, no value can be read: that is how it is seen where the product was."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert matmul_flops_per_second(torch.float32, size=8) > 0
    with pytest.raises(RuntimeError, match="meta"):
        matmul_flops_per_second(torch.float32, size=8, device=torch.device("meta"))

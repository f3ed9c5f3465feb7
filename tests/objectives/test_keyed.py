"""Random numbers that belong to samples: whoever draws them, whenever, gets the same."""

import torch

from foundation_core.objectives.keyed import uniform

SAMPLES = torch.arange(2000)


def test_a_row_depends_on_its_sample_alone():
    whole = uniform(3, "mask", SAMPLES, 50)
    shuffled = torch.randperm(len(SAMPLES), generator=torch.Generator().manual_seed(0))
    assert torch.equal(uniform(3, "mask", SAMPLES[shuffled], 50), whole[shuffled])
    assert torch.equal(uniform(3, "mask", SAMPLES[17:18], 50), whole[17:18])


def test_numbers_are_spread_evenly_and_are_below_one():
    numbers = uniform(0, "mask", SAMPLES, 100).flatten()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=20, min=0, max=1)
    expected = len(numbers) / 20
    assert ((counts - expected) ** 2 / expected).sum() < 45, "chi-squared of 19 degrees: 45 is passed once in 1,500"


def test_seeds_names_neighbours_and_far_samples_are_independent():
    def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
        return abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item())

    base = uniform(0, "mask", SAMPLES, 50)
    others = (
        uniform(1, "mask", SAMPLES, 50),
        uniform(0, "how", SAMPLES, 50),
        uniform(0, "mask", SAMPLES + 1, 50),
        uniform(0, "mask", SAMPLES + 2**32, 50),
        base.roll(1, dims=1),
    )
    assert max(correlation(base, other) for other in others) < 0.015
    assert correlation(base, base) > 0.99

"""Random numbers as a function of the seed and the sample: no rank, process or order of batches can change them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from foundation_core.data.loading.order import mixed

_WORD = 0xFFFFFFFF
_BITS = 24  # what a float32 between 0 and 1 can hold
_STRIDE = 0x9E3779B1  # odd, so that equal steps fall far apart


def uniform(seed: int, name: str, sample_N: Tensor, count: int) -> Tensor:
    """(N, count) float32 in [0, 1): row i depends on the seed, the name and `sample_N[i]` alone.

    Args:
        name: what the numbers are for; two names give independent ones.
        sample_N: global numbers of samples; those of padding (-1) get numbers too.
    """
    key, other = _keys(seed, name)
    sample_N1 = sample_N.to(torch.int64)[:, None]
    word_N1 = mixed((sample_N1 & _WORD) ^ key) ^ mixed(((sample_N1 >> 32) & _WORD) ^ other)
    place_C = mixed(torch.arange(count, device=sample_N.device) * _STRIDE & _WORD)
    word_NC = mixed(word_N1 ^ place_C ^ other)
    number_NC: Tensor = mixed(word_NC + key & _WORD) >> (32 - _BITS)
    share_NC: Tensor = number_NC.float() / 2**_BITS
    return share_NC


def _keys(seed: int, name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")

"""Randomness for a purpose: one seed, many independent streams."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose; other purposes get unrelated ones.

    Examples:
        >>> stream_seed(0, "epoch", 1) == stream_seed(0, "epoch", 1) != stream_seed(0, "epoch", 2)
        True
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return torch's generator for one purpose."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return NumPy's generator for one purpose."""
    return np.random.default_rng(stream_seed(seed, *purpose))

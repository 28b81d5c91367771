"""Randomness for a purpose: one seed, many independent streams."""

from __future__ import annotations

import hashlib
import operator

import numpy as np
import torch

from mednovelty.errors import SettingsError


def stream_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose; other purposes get unrelated ones.

    Args:
        seed: Any whole number; Python's and NumPy's integers of one value are one seed.
        *purpose: What the numbers are for, for example ``"order", 3``.

    Raises:
        SettingsError: The seed is no whole number.

    Examples:
        >>> stream_seed(0, "epoch", 1) == stream_seed(0, "epoch", 1) != stream_seed(0, "epoch", 2)
        True
    """
    try:
        whole = operator.index(seed)
    except TypeError as error:
        raise SettingsError(f"a seed is a whole number, not {seed!r}") from error
    digest = hashlib.sha256(repr((whole, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *purpose: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return torch's generator for one purpose.

    Args:
        seed: See ``stream_seed``.
        *purpose: See ``stream_seed``.
        device: Where its numbers are drawn; each kind of device draws others from the same seed.
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *purpose))


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return NumPy's generator for one purpose; the arguments are those of ``stream_seed``."""
    return np.random.default_rng(stream_seed(seed, *purpose))

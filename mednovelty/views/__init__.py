"""Scan to samples and scores back to a volume."""

from __future__ import annotations

SAMPLES = {"voxel": "voxels", "slice": "slices", "patch": "windows"}


def samples_of(view: str) -> str:
    """Return what a view cuts scans into, in words; of views of others ``samples``.

    Examples:
        >>> samples_of("patch"), samples_of("my_view")
        ('windows', 'samples')
    """
    return SAMPLES.get(view, "samples")


__all__ = ["samples_of"]

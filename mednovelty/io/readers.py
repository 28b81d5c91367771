"""Which reader opens which file: the plug-ins of group ``readers``, chosen by suffix."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty.plugins import names, plugin

if TYPE_CHECKING:
    from mednovelty.io.nifti_source import NiftiSettings
    from mednovelty.protocols import VolumeSource


@cache
def _by_suffix() -> dict[str, Any]:
    """Return suffix to reader, longest suffix first: ``.nii.gz`` before ``.gz``."""
    found = {
        suffix: kind
        for name in names("readers")
        for kind in [plugin("readers", name)]
        for suffix in kind.suffixes
    }
    return dict(sorted(found.items(), key=lambda item: (-len(item[0]), item[0])))


def image_suffixes() -> tuple[str, ...]:
    """Return the suffixes that installed readers open, longest first.

    Examples:
        >>> ".nii.gz" in image_suffixes()
        True
    """
    return tuple(_by_suffix())


def open_image(path: Path, settings: NiftiSettings) -> VolumeSource:
    """Return an image that is open for reading, its header checked.

    A file with an unknown suffix is given to the NIfTI reader, which goes by content and says what is wrong.

    Raises:
        ScanError: Names the file and what is wrong with it.
    """
    from mednovelty.io.nifti import NiftiReader

    name = path.name.lower()
    reader = next((kind for suffix, kind in _by_suffix().items() if name.endswith(suffix)), NiftiReader)
    return reader.open(path, settings)

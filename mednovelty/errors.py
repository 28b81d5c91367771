"""Everything mednovelty raises on purpose, and the exit code that each becomes on the command line.

MedNoveltyError          1
├── SettingsError        2   a setting or an argument is wrong        (suggests the nearest)
│   └── UnknownPluginError   no such name in a plug-in group          (suggests the nearest)
├── ScanError            3   the scan cannot be used as it is         (names the file)
│   ├── GeometryError        shapes, affines or spacings disagree     (prints both sides)
│   ├── GradientError        b-values or directions do not fit        (prints the numbers)
│   └── SchemeError          not the acquisition the detector knows   (says what differs)
├── DetectorError        4   detector missing, damaged or not fitting
├── OutputError          5   cannot write, or something is there already
└── StoppedError       130   stopped by a signal; what is done is kept, ``--resume`` goes on

Every ``ScanError`` carries a stable ``code`` such as ``gradients.count``, which ``mednovelty check``
prints and scripts can rely on; its words may change, its code does not.
"""

from __future__ import annotations

from typing import ClassVar


class MedNoveltyError(Exception):
    """Base of the tree; catch it to catch everything that mednovelty raises on purpose."""

    exit_code: ClassVar[int] = 1


class SettingsError(MedNoveltyError, ValueError):
    """A setting or an argument is wrong.

    Args:
        message: Which, what is wrong with it, and what to do.
        code: Stable name of the problem, ``family.problem``, of those that scripts may ask for.
    """

    exit_code = 2

    def __init__(self, message: str = "", *, code: str = "settings.wrong") -> None:
        super().__init__(message)
        self.code = code


class UnknownPluginError(SettingsError, LookupError):
    """No plug-in of that name in the group."""


class ScanError(MedNoveltyError, ValueError):
    """The scan cannot be used as it is.

    Args:
        message: What is wrong, beginning with the file's name, and what to do.
        code: Stable name of the problem, ``family.problem``.

    Examples:
        >>> ScanError("sub-01_dwi.nii.gz: empty file", code="file.empty").code
        'file.empty'
    """

    exit_code = 3

    def __init__(self, message: str, *, code: str = "scan.unusable") -> None:
        super().__init__(message)
        self.code = code


class GeometryError(ScanError):
    """Shapes, affines or spacings disagree."""

    def __init__(self, message: str, *, code: str = "geometry.disagrees") -> None:
        super().__init__(message, code=code)


class GradientError(ScanError):
    """b-values or directions do not fit the volumes or each other."""

    def __init__(self, message: str, *, code: str = "gradients.unusable") -> None:
        super().__init__(message, code=code)


class SchemeError(ScanError):
    """The scan was not acquired as the scans the detector was trained on."""

    def __init__(self, message: str, *, code: str = "scheme.differs") -> None:
        super().__init__(message, code=code)


class DetectorError(MedNoveltyError):
    """A detector is missing, damaged or does not fit."""

    exit_code = 4


class OutputError(MedNoveltyError, OSError):
    """Something cannot be written, or would overwrite what is there."""

    exit_code = 5


class StoppedError(MedNoveltyError):
    """Stopped by a signal between two steps; what is done is kept."""

    exit_code = 130


def failure_message(error: Exception, name: str) -> str:
    """Return what to say of a scan, ``name``, that failed for whatever reason."""
    if isinstance(error, MedNoveltyError | OSError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{name}: not enough memory; free some, or lower cache_bytes or batch_voxels"
    return f"{name}: unexpected {type(error).__name__}: {error}"

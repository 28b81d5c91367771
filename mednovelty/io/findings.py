"""What ``check`` found: one line a problem, with codes that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from mednovelty.errors import MedNoveltyError, ScanError, StoppedError

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

    from mednovelty.protocols import VolumeSource

Severity = Literal["error", "warning", "info"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one scan, or about the cohort.

    Attributes:
        scan: Its id; empty for the cohort.
        severity: ``error``: it cannot be used; ``warning``: look at it; ``info``: know it.
        code: Stable name.
        message: Names the file and the numbers.
    """

    scan: str
    severity: Severity
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found.

    Attributes:
        findings: Errors first, in the order of the scans.
        n_scans: Scans that were found.
        n_failed: Of them, those with an error.
    """

    findings: tuple[Finding, ...]
    n_scans: int
    n_failed: int

    def rows(self) -> list[dict[str, str]]:
        """Return the findings as JSON types."""
        return [asdict(finding) for finding in self.findings]

    def summary(self) -> str:
        """Return the outcome in one line."""
        count = Counter(finding.severity for finding in self.findings)
        scans = f"{self.n_scans - self.n_failed} of {self.n_scans} scans can be used"
        return f"{scans}; {count['error']} errors, {count['warning']} warnings"

    @property
    def exit_code(self) -> int:
        """0: all scans can be used; 6: some; 3: none, or not together."""
        of_cohort = any(finding.severity == "error" and not finding.scan for finding in self.findings)
        if of_cohort or self.n_failed == self.n_scans:
            return ScanError.exit_code
        return 6 if self.n_failed else 0


@dataclass(frozen=True, slots=True)
class Checked:
    """What the cohort's scans are compared by; gradients of diffusion scans only."""

    id: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axes: str
    gradients: GradientTable | None = None
    sha256: str = ""

    @classmethod
    def of(cls, scan_id: str, source: VolumeSource, gradients: GradientTable | None = None) -> Checked:
        """Return it of an open image."""
        from nibabel.orientations import aff2axcodes

        spacing_mm = tuple(round(float(s), 3) for s in source.grid.spacing_mm)
        axes = "".join(aff2axcodes(source.grid.affine))
        return cls(scan_id, source.grid.shape, spacing_mm, axes, gradients)

    def is_b0(self) -> np.ndarray:
        """Return ``(C,)`` bool."""
        assert self.gradients is not None
        return np.asarray(self.gradients.b0s_mask, bool)


class Findings:
    """What is found at one scan; the look goes on where it can.

    Args:
        scan: Its id.
        found: What is found is added to it.
    """

    def __init__(self, scan: str, found: list[Finding]) -> None:
        self._scan = scan
        self._found = found

    def attempt(self, step: Callable[[], T]) -> T | None:
        """Return what a step returns; None when it fails, which is then a finding."""
        try:
            return step()
        except StoppedError:
            raise
        except ScanError as error:
            self.add("error", error.code, str(error))
        except MedNoveltyError as error:
            self.add("error", "scan.unusable", str(error))
        return None

    def warn(self, code: str, messages: list[str]) -> None:
        """Add warnings."""
        for message in messages:
            self.add("warning", code, message)

    def add(self, severity: Severity, code: str, message: str) -> None:
        """Add what was not found yet."""
        finding = Finding(self._scan, severity, code, message)
        if finding not in self._found:
            self._found.append(finding)

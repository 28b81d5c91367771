"""Everything that is wrong with a cohort, found before hours are spent on it.

Headers, gradients and the headers of masks are read: milliseconds a scan. ``deep`` reads every voxel to
the verified end as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from mednovelty.errors import MedNoveltyError, ScanError, StoppedError
from mednovelty.io.gradients import shells
from mednovelty.io.guard import shown
from mednovelty.io.mask import check_mask, read_mask
from mednovelty.io.read_scan import DEFAULTS, ReadOptions, check_sha256, gradients_of_scan
from mednovelty.io.readers import open_image
from mednovelty.io.scan_folder import ScanFiles, find_scans, id_collisions
from mednovelty.io.tally import Tally
from mednovelty.io.walk import Skipped
from mednovelty.protocols import VolumeSource

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

Severity = Literal["error", "warning", "info"]
T = TypeVar("T")

_SAME_DIRECTION_DEGREES = 2.0
_EXPECTED = ("mask", "image.3d", "image.not_dwi", "derivatives", "role")
_ORDER = {"error": 0, "warning": 1, "info": 2}


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
class _Checked:
    """What the cohort's scans are compared by."""

    id: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axes: str
    gradients: GradientTable
    sha256: str = ""


def check_folder(
    path: str | Path,
    *,
    brain_masks: str | Path | None = None,
    deep: bool = False,
    options: ReadOptions = DEFAULTS,
) -> CheckReport:
    """Check every scan of a folder, and what differs between them.

    Args:
        path: What ``scan_folder`` takes.
        brain_masks: Folder of brain masks named by scan id.
        deep: Read every voxel too: checksums, those of a manifest among them, numbers that are not
            finite, empty volumes.
        options: How scans would be read.

    Raises:
        SettingsError: ``path`` or ``brain_masks`` is not what it should be.
        StoppedError: Stopped by a signal.
    """
    try:
        found = find_scans(path, brain_masks=brain_masks)
    except ScanError as error:
        return CheckReport((Finding("", "error", error.code, str(error)),), 0, 0)
    findings = [_skipped(skipped) for skipped in found.skipped]
    findings += [Finding("", "error", error.code, str(error)) for error in id_collisions(found)]
    if not found.scans:
        findings.append(Finding("", "error", "folder.no_scan", f"{shown(path)}: no scan found"))
    without = sum(files.mask is None for files in found)
    if without:
        what = f"{without} of {len(found)} scans have no brain mask; median_otsu will make one for each"
        findings.append(Finding("", "info", "mask.absent", f"{shown(path)}: {what}"))
    checked = []
    for files in found:
        look = _Look(files, options, findings)
        scan = look.headers()
        if scan is not None and deep:
            scan = look.voxels(scan)
        if scan is not None:
            checked.append(scan)
    findings += _compare(checked)
    failed = {finding.scan for finding in findings if finding.severity == "error" and finding.scan}
    order = sorted(findings, key=lambda finding: _ORDER[finding.severity])
    return CheckReport(tuple(order), len(found), len(failed))


class _Look:
    """At one scan; what is wrong goes into the findings, and the look goes on where it can."""

    def __init__(self, files: ScanFiles, options: ReadOptions, findings: list[Finding]) -> None:
        self._files = files
        self._options = options
        self._findings = findings

    def headers(self) -> _Checked | None:
        """Return what the headers say; None when the image or its gradients cannot be used."""
        files, options = self._files, self._options
        source = self._try(lambda: open_image(files.image, options.nifti))
        if source is None:
            return None
        self._warn("header.odd", source.warnings)
        read = self._try(lambda: gradients_of_scan(files, source, options))
        mask = files.mask
        if mask is not None:
            self._try(lambda: check_mask(mask, source.grid, source.name, options.nifti))
        if read is None or read[0] is None:
            return None
        self._warn("gradients.odd", read[1])
        return _checked(files.id, source, read[0])

    def voxels(self, scan: _Checked) -> _Checked | None:
        """Read image and mask to their verified ends."""
        return self._try(lambda: self._read(scan))

    def _read(self, scan: _Checked) -> _Checked:
        source = open_image(self._files.image, self._options.nifti)
        known = len(source.warnings)
        tally = Tally(source.name, source.slope, source.inter, np.asarray(scan.gradients.b0s_mask, bool))
        for channel, volume in enumerate(source.volumes()):
            tally.add(volume, channel)
        check_sha256(self._files, source)
        self._warn("voxels.odd", source.warnings[known:] + tally.finish())
        if self._files.mask is not None:
            _, warnings = read_mask(self._files.mask, source.grid, source.name, self._options.nifti)
            self._warn("mask.odd", warnings)
        return replace(scan, sha256=source.sha256)

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except StoppedError:
            raise
        except ScanError as error:
            self._add("error", error.code, str(error))
        except MedNoveltyError as error:
            self._add("error", "scan.unusable", str(error))
        return None

    def _warn(self, code: str, messages: list[str]) -> None:
        for message in messages:
            self._add("warning", code, message)

    def _add(self, severity: Severity, code: str, message: str) -> None:
        finding = Finding(self._files.id, severity, code, message)
        if finding not in self._findings:
            self._findings.append(finding)


def _skipped(skipped: Skipped) -> Finding:
    severity: Severity = "info" if skipped.code in _EXPECTED else "warning"
    return Finding("", severity, f"skipped.{skipped.code}", f"{skipped.path}: {skipped.why}")


def _checked(scan_id: str, source: VolumeSource, gradients: GradientTable) -> _Checked:
    from nibabel.orientations import aff2axcodes

    return _Checked(
        scan_id,
        source.grid.shape,
        tuple(round(float(s), 3) for s in source.grid.spacing_mm),
        "".join(aff2axcodes(source.grid.affine)),
        gradients,
    )


def _compare(scans: list[_Checked]) -> list[Finding]:
    """Return in what scans differ from most of their cohort."""
    if len(scans) < 2:
        return []
    found: list[Finding] = []

    def differ(code: str, severity: Severity, what: str, of: Callable[[_Checked], Any]) -> Any:
        usual, count = Counter(of(scan) for scan in scans).most_common(1)[0]
        for scan in scans:
            if of(scan) != usual:
                most = f"{count} of {len(scans)} scans have {usual}"
                found.append(Finding(scan.id, severity, code, f"{scan.id}: {what} {of(scan)}; {most}"))
        return usual

    differ("space.spacing", "warning", "voxel sizes in mm", lambda scan: scan.spacing_mm)
    differ("space.shape", "info", "voxels", lambda scan: scan.shape)
    differ("space.axes", "info", "axes", lambda scan: scan.axes)
    usual = differ("scheme.shells", "warning", "shells", lambda scan: _shells_in_words(scan.gradients))
    found += _compare_directions([scan for scan in scans if _shells_in_words(scan.gradients) == usual])
    return found + _duplicates(scans)


def _shells_in_words(gradients: GradientTable) -> str:
    return ", ".join(f"{count} at b={b}" for b, count in shells(gradients.bvals))


def _compare_directions(scans: list[_Checked]) -> list[Finding]:
    """Return scans whose directions are not those of the first, in whatever order, up to their sign."""
    found = []
    reference = scans[0].gradients
    for scan in scans[1:]:
        own = scan.gradients
        cosines = np.abs(reference.bvecs[~reference.b0s_mask] @ own.bvecs[~own.b0s_mask].T).max(axis=1)
        degrees = np.degrees(np.arccos(np.clip(cosines, 0, 1)))
        if degrees.max() > _SAME_DIRECTION_DEGREES:
            many = f"{np.count_nonzero(degrees > _SAME_DIRECTION_DEGREES)} of {degrees.size} directions"
            far = f"the farthest by {degrees.max():.1f} degrees"
            message = f"{scan.id}: lacks {many} of {scans[0].id}, {far}"
            found.append(Finding(scan.id, "warning", "scheme.directions", message))
    return found


def _duplicates(scans: list[_Checked]) -> list[Finding]:
    first: dict[str, str] = {}
    found = []
    for scan in scans:
        other = first.setdefault(scan.sha256, scan.id) if scan.sha256 else scan.id
        if other != scan.id:
            message = f"{scan.id}: the same file, byte for byte, as {other}"
            found.append(Finding(scan.id, "warning", "cohort.duplicate", message))
    return found

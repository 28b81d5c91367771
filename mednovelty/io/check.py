"""Everything that is wrong with a cohort, found before hours are spent on it.

Headers, gradients and the headers of masks are read: milliseconds a scan. ``deep`` reads every voxel to
the verified end as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.io.check_structural import look_at_structural
from mednovelty.io.findings import Checked, CheckReport, Finding, Findings, Severity
from mednovelty.io.gradients import shells
from mednovelty.io.guard import shown
from mednovelty.io.mask import check_mask, read_mask
from mednovelty.io.read_scan import DEFAULTS, ReadOptions, check_sha256, gradients_of_scan
from mednovelty.io.readers import open_image
from mednovelty.io.scan_folder import Kind, ScanFiles, find_scans, id_collisions
from mednovelty.io.tally import Tally
from mednovelty.io.walk import Skipped

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

_SAME_DIRECTION_DEGREES = 2.0
_EXPECTED = ("mask", "image.3d", "image.not_dwi", "image.dwi", "image.not_anat", "derivatives", "role",
             "contrast.other")  # fmt: skip
_ORDER = {"error": 0, "warning": 1, "info": 2}


def check_folder(
    path: str | Path,
    *,
    brain_masks: str | Path | None = None,
    deep: bool = False,
    options: ReadOptions = DEFAULTS,
    kind: Kind | None = None,
    contrasts: Sequence[str] | None = None,
) -> CheckReport:
    """Check every scan of a folder, and what differs between them.

    Args:
        path: What ``scan_folder`` takes.
        brain_masks: Folder of brain masks named by scan id.
        deep: Read every voxel too: checksums, those of a manifest among them, numbers that are not
            finite, empty volumes.
        options: How scans would be read.
        kind: Diffusion or structural scans, as ``scan_folder`` takes it.
        contrasts: Of structural scans, as ``scan_folder`` takes them.

    Raises:
        SettingsError: ``path``, ``brain_masks`` or ``contrasts`` is not what it should be.
        StoppedError: Stopped by a signal.
    """
    try:
        found = find_scans(path, brain_masks=brain_masks, kind=kind, contrasts=contrasts)
    except ScanError as error:
        return CheckReport((Finding("", "error", error.code, str(error)),), 0, 0)
    findings = [_skipped(skipped) for skipped in found.skipped]
    findings += [Finding("", "error", error.code, str(error)) for error in id_collisions(found)]
    if not found.scans:
        findings.append(Finding("", "error", "folder.no_scan", f"{shown(path)}: no scan found"))
    without = sum(files.mask is None for files in found)
    if without:
        maker = "one will be made for each" if found[0].contrasts else "median_otsu will make one for each"
        what = f"{without} of {len(found)} scans have no brain mask; {maker}"
        findings.append(Finding("", "info", "mask.absent", f"{shown(path)}: {what}"))
    looks = [_look_at(files, deep, options, findings) for files in found]
    checked = [scan for scan in looks if scan is not None]
    findings += _compare(checked)
    failed = {finding.scan for finding in findings if finding.severity == "error" and finding.scan}
    order = sorted(findings, key=lambda finding: _ORDER[finding.severity])
    return CheckReport(tuple(order), len(found), len(failed))


def _look_at(files: ScanFiles, deep: bool, options: ReadOptions, findings: list[Finding]) -> Checked | None:
    if files.contrasts:
        return look_at_structural(files, deep, options, Findings(files.id, findings))
    look = _Look(files, options, findings)
    scan = look.headers()
    return look.voxels(scan) if scan is not None and deep else scan


class _Look:
    """At one scan; what is wrong goes into the findings, and the look goes on where it can."""

    def __init__(self, files: ScanFiles, options: ReadOptions, findings: list[Finding]) -> None:
        self._files = files
        self._options = options
        self._found = Findings(files.id, findings)

    def headers(self) -> Checked | None:
        """Return what the headers say; None when the image or its gradients cannot be used."""
        files, options = self._files, self._options
        source = self._found.attempt(lambda: open_image(files.image, options.nifti))
        if source is None:
            return None
        self._found.warn("header.odd", source.warnings)
        read = self._found.attempt(lambda: gradients_of_scan(files, source, options))
        mask = files.mask
        if mask is not None:
            self._found.attempt(lambda: check_mask(mask, source.grid, source.name, options.nifti))
        if read is None or read[0] is None:
            return None
        self._found.warn("gradients.odd", read[1])
        return Checked.of(files.id, source, read[0])

    def voxels(self, scan: Checked) -> Checked | None:
        """Read image and mask to their verified ends."""
        return self._found.attempt(lambda: self._read(scan))

    def _read(self, scan: Checked) -> Checked:
        source = open_image(self._files.image, self._options.nifti)
        known = len(source.warnings)
        tally = Tally(source.name, source.slope, source.inter, scan.is_b0())
        for channel, volume in enumerate(source.volumes()):
            tally.add(volume, channel)
        check_sha256(self._files, source)
        self._found.warn("voxels.odd", source.warnings[known:] + tally.finish())
        if self._files.mask is not None:
            _, warnings = read_mask(self._files.mask, source.grid, source.name, self._options.nifti)
            self._found.warn("mask.odd", warnings)
        return replace(scan, sha256=source.sha256)


def _skipped(skipped: Skipped) -> Finding:
    severity: Severity = "info" if skipped.code in _EXPECTED else "warning"
    return Finding("", severity, f"skipped.{skipped.code}", f"{skipped.path}: {skipped.why}")


def _compare(scans: list[Checked]) -> list[Finding]:
    """Return in what scans differ from most of their cohort."""
    if len(scans) < 2:
        return []
    found: list[Finding] = []

    def differ(code: str, severity: Severity, what: str, of: Callable[[Checked], Any]) -> Any:
        usual, count = Counter(of(scan) for scan in scans).most_common(1)[0]
        for scan in scans:
            if of(scan) != usual:
                most = f"{count} of {len(scans)} scans have {usual}"
                found.append(Finding(scan.id, severity, code, f"{scan.id}: {what} {of(scan)}; {most}"))
        return usual

    differ("space.spacing", "warning", "voxel sizes in mm", lambda scan: scan.spacing_mm)
    differ("space.shape", "info", "voxels", lambda scan: scan.shape)
    # Of no consequence to single voxels; slices and windows are cut along the axes as they are stored.
    turned: Severity = "warning" if scans[0].gradients is None else "info"
    differ("space.axes", turned, "axes", lambda scan: scan.axes)
    usual = differ("scheme.shells", "warning", "shells", lambda scan: _shells_in_words(scan.gradients))
    if usual:
        found += _compare_directions([scan for scan in scans if _shells_in_words(scan.gradients) == usual])
    return found + _duplicates(scans)


def _shells_in_words(gradients: GradientTable | None) -> str:
    if gradients is None:
        return ""
    return ", ".join(f"{count} at b={b}" for b, count in shells(gradients.bvals))


def _compare_directions(scans: list[Checked]) -> list[Finding]:
    """Return scans whose directions are not those of the first, in whatever order, up to their sign."""
    found = []
    (first, reference), *others = [(scan, scan.gradients) for scan in scans if scan.gradients is not None]
    for scan, own in others:
        cosines = np.abs(reference.bvecs[~reference.b0s_mask] @ own.bvecs[~own.b0s_mask].T).max(axis=1)
        degrees = np.degrees(np.arccos(np.clip(cosines, 0, 1)))
        if degrees.max() > _SAME_DIRECTION_DEGREES:
            many = f"{np.count_nonzero(degrees > _SAME_DIRECTION_DEGREES)} of {degrees.size} directions"
            far = f"the farthest by {degrees.max():.1f} degrees"
            message = f"{scan.id}: lacks {many} of {first.id}, {far}"
            found.append(Finding(scan.id, "warning", "scheme.directions", message))
    return found


def _duplicates(scans: list[Checked]) -> list[Finding]:
    first: dict[str, str] = {}
    found = []
    for scan in scans:
        other = first.setdefault(scan.sha256, scan.id) if scan.sha256 else scan.id
        if other != scan.id:
            message = f"{scan.id}: the same file, byte for byte, as {other}"
            found.append(Finding(scan.id, "warning", "cohort.duplicate", message))
    return found

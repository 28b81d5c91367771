"""What is wrong with one structural scan: each contrast by itself, and against the first."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mednovelty.io.findings import Checked, Findings
from mednovelty.io.mask import check_mask
from mednovelty.io.read_scan import ReadOptions
from mednovelty.io.scan_files import ScanFiles
from mednovelty.io.structural import header_warnings, open_contrasts, read_structural


def look_at_structural(
    files: ScanFiles, deep: bool, options: ReadOptions, findings: Findings
) -> Checked | None:
    """Look at the images of one subject and its brain mask; None when it cannot be used.

    Args:
        files: With contrasts.
        deep: Read every voxel too.
        options: How the scan would be read.
        findings: What is wrong is added to it.
    """
    one = findings.attempt(partial(open_contrasts, replace(files, contrasts=files.contrasts[:1]), options))
    mask = files.mask
    if one and mask is not None:
        findings.attempt(lambda: check_mask(mask, one[0].grid, one[0].name, options.nifti))
    # In pairs, so that what is wrong with one contrast does not hide what is with the next.
    pairs = [replace(files, contrasts=(files.contrasts[0], other)) for other in files.contrasts[1:]]
    opened = [one, *(findings.attempt(partial(open_contrasts, pair, options)) for pair in pairs)]
    sources = None if None in opened else findings.attempt(partial(open_contrasts, files, options))
    if not sources:
        return None
    known = header_warnings(sources)
    findings.warn("header.odd", known)
    checked = Checked.of(files.id, sources[0])
    if not deep:
        return checked
    scan = findings.attempt(lambda: read_structural(files, options))
    if scan is None:
        return None
    findings.warn("voxels.odd", [warning for warning in scan.warnings if warning not in known])
    return replace(checked, sha256=scan.sha256)

"""Relevance of many scans, one after another: what is done stays done, and one bad scan stops nobody.

``OUT/<subject>/[<session>/]dwi/<id>_desc-<score>_relevance*``, see ``explaining.files``, and pictures
beside them, ``_relevance.png`` and ``_relevance-gradients.png``. The ``.json`` is written last: with hashes
that match it means done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import OutputError, SettingsError, StoppedError
from mednovelty.explaining.explain import METHODS, Method, check_explainable, scoring_of
from mednovelty.explaining.files import start_of, write_images, write_sidecar, write_tables
from mednovelty.explaining.scans import ScanRelevance, explain_scan
from mednovelty.io.guard import sha256_of_file
from mednovelty.mapping import describe
from mednovelty.maps import NoveltyMap
from mednovelty.output_folder import sole_writer, write_folder_facts
from mednovelty.outputs import OutputNames, key_of, peak_mib, settings_of, settings_sha256, sidecar_of, told
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin
from mednovelty.report.relevance import draw_relevance
from mednovelty.run_record import EXISTS, CohortResult, Outcome, failure_of, write_record
from mednovelty.scan import Scan, Volume
from mednovelty.store import json_types

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles, ScanList

log = logging.getLogger("mednovelty")

RECORD = "explain"
"""``OUT/explain.json`` and ``OUT/explain-failures.tsv``: those of ``score`` may lie beside them."""


@dataclass(frozen=True)
class ExplainRun:
    """How a cohort is explained.

    Attributes:
        scores: Which.
        method: See ``explaining.explain``.
        regions: Of which voxels tables tell, by scan id, a mask each; of scans without one, all voxels.
        overwrite: Whether relevance by another detector or other settings is replaced.
    """

    scores: tuple[str, ...]
    method: Method = "auto"
    regions: dict[str, Path] | None = None
    overwrite: bool = False

    def region_of(self, files: ScanFiles) -> Path | None:
        """Return a scan's mask."""
        return (self.regions or {}).get(files.id)


def scores_to_explain(detector: Detector, asked: Sequence[str] | None, method: Method) -> tuple[str, ...]:
    """Return the scores to explain: those asked for, else one of those that the detector was fitted for.

    Of the latter the first whose relevance is conserved, if there is one, else the first that can be
    explained; those that look normals up come after those of the model.

    Raises:
        SettingsError: One cannot be explained, or none can.
    """
    if method not in METHODS:
        raise SettingsError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    scoring = scoring_of(detector)
    if asked:
        _refuse_scores_of_scans(asked, detector)
        names = detector.names_of(asked)
        for name in names:
            _refuse_baseline(name, detector)
            check_explainable(scoring, name, method)
        return tuple(names)
    modelled = [name for name in detector.settings.scores if name not in detector.contrast_baselines]
    modelled.sort(key=lambda name: bool(getattr(plugin("scorers", name), "reference_parts", ())))
    ways: tuple[Method, ...] = ("lrp", "auto") if method == "auto" else (method,)
    for way in ways:
        for name in modelled:
            with contextlib.suppress(SettingsError):
                check_explainable(scoring, name, way)
                return (name,)
    raise SettingsError(
        f"none of {', '.join(detector.settings.scores)}, for which the detector was fitted, can be explained"
        f"{'' if method == 'auto' else f' by {method}'}; name another with --score"
    )


def explain_cohort(
    detector: Detector,
    scans: ScanList,
    out: str | Path,
    run: ExplainRun,
    options: ReadOptions | None = None,
) -> CohortResult:
    """Write the relevance of every scan of a list into a folder, which may be that of its maps.

    Args:
        detector: It must have been read from disk or saved.
        scans: From ``scan_folder``.
        out: The folder to write; made if absent. ``cohort.check_run`` must have let it pass.
        run: Which scores, and how.
        options: How scans are read; None: as the detector has it.

    Raises:
        OutputError: The folder cannot be written, or is in use by another run.
        SettingsError: A score cannot be explained.
        StoppedError: Stopped by a signal.
    """
    out, options = Path(out), options or detector.reading
    facts = {
        "Scores": run.scores,
        "Method": run.method,
        "Settings": settings_of(detector, options),
        "SettingsSha256": settings_sha256(detector, options),
    }
    so_far = CohortResult((), tuple((str(s.path), s.why) for s in scans.skipped), tuple(s.id for s in scans))
    with sole_writer(out):
        try:
            write_folder_facts(out)
            for files in scans:
                outcome = _explain_one(detector, files, out, run, options)
                so_far = replace(so_far, outcomes=(*so_far.outcomes, outcome), unreached=so_far.unreached[1:])
                log.info("%s: %s %s", outcome.id, outcome.status, outcome.message)
            write_record(out, detector, so_far, facts, RECORD)
        except BaseException as error:
            with contextlib.suppress(Exception):
                write_record(out, detector, replace(so_far, ended_by=error), facts, RECORD)
            raise
    return so_far


def _explain_one(
    detector: Detector, files: ScanFiles, out: Path, run: ExplainRun, options: ReadOptions
) -> Outcome:
    """Explain one scan; what goes wrong with it is its outcome, what goes wrong with the disk is raised."""
    from mednovelty.io.structural import input_sha256

    start, source = time.monotonic(), str(files.image)
    try:
        place = OutputNames.of(files, out)
        standing = [name for name in run.scores if _sidecar(place, name).exists()]
        key = _key(detector, files, run, options, input_sha256(files)) if standing else {}
        others = [name for name in standing if not _is_of(_sidecar(place, name), key)]
        if others and not run.overwrite:
            message = (
                f"{place.folder}: holds relevance of {files.id} for {', '.join(others)} by another detector, "
                "with other settings or from another file; choose another folder or pass --overwrite"
            )
            return Outcome(files.id, "failed", message, EXISTS, source)
        wanted = [name for name in run.scores if not _is_done(_sidecar(place, name), key)]
        if not wanted:
            return Outcome(files.id, "up to date", source=source)
        n_voxels = _explain_and_write(detector, files, place, replace(run, scores=tuple(wanted)), options)
    except (OutputError, StoppedError, SettingsError):
        raise
    except Exception as error:  # Whatever is wrong with one scan must not stop the others.
        return failure_of(files, error, time.monotonic() - start)
    return Outcome(files.id, "done", source=source, n_voxels=n_voxels, seconds=time.monotonic() - start)


def _explain_and_write(
    detector: Detector, files: ScanFiles, place: OutputNames, run: ExplainRun, options: ReadOptions
) -> int:
    from mednovelty.io.read_scan import read_scan

    scan = read_scan(files, options=options)
    region = _region(run.region_of(files), scan)
    key = _key(detector, files, run, options, scan.sha256)
    _write_background(place, scan)
    for name in run.scores:
        start = time.monotonic()
        found = explain_scan(detector, scan, name, run.method, region=region)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_sidecar(place, name))
        written = [
            *write_images(found, place.folder, place.stem),
            *write_tables(found, place.folder, place.stem),
        ]
        written += draw_relevance(found, scan, start_of(found, place.folder, place.stem), region)
        hashes = {path.name: sha256_of_file(path) for path in written}
        seconds = round(time.monotonic() - start, 3)
        facts = {**key, "Runtime": {"Seconds": seconds, "PeakMiB": peak_mib()}, "FilesSha256": hashes}
        about = _about(detector, scan, found, place, facts)
        about["Region"] = None if region is None else {"Voxels": int((region & scan.mask).sum())}
        write_sidecar(found, place.folder, place.stem, about)
    return scan.n_voxels


def _about(
    detector: Detector, scan: Scan, found: ScanRelevance, place: OutputNames, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what the sidecars of maps tell, of relevance."""
    about = dict(describe(found.score, detector.contrast_baselines))
    side = sidecar_of(detector, scan, NoveltyMap(found.score, found.volume, scan.mask, about), place, facts)
    of = "contrasts" if detector.contrasts else "gradients"
    side["Description"] = (
        f"Relevance for {found.score}, summed over {of}: how much of the score each voxel accounts for, or, "
        f"where the rule does not conserve, how it moves the score. Rule: {found.rule}."
    )
    for name in ("Calibration", "Threshold"):
        del side[name]
    return json_types(side)


def _region(path: Path | None, scan: Scan) -> np.ndarray | None:
    from mednovelty.io.mask import read_mask

    if path is None:
        return None
    region, warnings = read_mask(path, scan.grid, scan.id)
    for warning in warnings:
        log.warning("%s", warning)
    return region


def _write_background(place: OutputNames, scan: Scan) -> None:
    """Write the image to draw on and the mask, where no run has done so."""
    from mednovelty.io.nifti import write_map

    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place.folder}: cannot be written: {error.strerror}") from error
    affine = scan.grid.affine
    if not place.background.exists():
        write_map(place.background, Volume(scan.background[None], affine, f"background of {scan.id}"))
    if not place.mask.exists():
        mask = Volume(scan.mask[None].astype(np.uint8), affine, f"mask of {scan.id}")
        write_map(place.mask, mask, dtype=np.uint8)


def _sidecar(place: OutputNames, score: str) -> Path:
    return place.folder / f"{place.stem}_desc-{score}_relevance.json"


def _key(
    detector: Detector, files: ScanFiles, run: ExplainRun, options: ReadOptions, image_sha256: str
) -> dict[str, str]:
    """Return what finished relevance must tell to count as done."""
    region = run.region_of(files)
    key = key_of(detector, files, options, image_sha256)
    return {
        **key,
        "ExplainMethod": run.method,
        "RegionSha256": "" if region is None else sha256_of_file(region),
    }


def _is_of(sidecar: Path, key: dict[str, str]) -> bool:
    """Whether relevance was made from the same; what cannot be read, as after a crash, counts as nothing."""
    facts = told(sidecar)
    return facts is None or all(facts.get(name) == value for name, value in key.items())


def _is_done(sidecar: Path, key: dict[str, str]) -> bool:
    facts = told(sidecar) if sidecar.exists() else None
    if not facts or not _is_of(sidecar, key):
        return False
    files = {sidecar.with_name(name): value for name, value in dict(facts.get("FilesSha256") or {}).items()}
    return bool(files) and all(path.is_file() and sha256_of_file(path) == own for path, own in files.items())


def _refuse_scores_of_scans(names: Sequence[str], detector: Detector) -> None:
    whole = next((name for name in names if name in plugin_names("scan_scorers")), None)
    if whole is not None:
        there = (
            "writes them" if whole in detector.scan_scores else "with a detector of that method writes them"
        )
        raise SettingsError(
            f"{whole}: judges scans as a whole, and what explains it are its own maps, what each voxel adds "
            f"and where each context looks: `mednovelty score` {there}"
        )


def _refuse_baseline(name: str, detector: Detector) -> None:
    if name in detector.contrast_baselines:
        raise SettingsError(f"{name}: is the intensity itself; there is nothing to explain")


__all__ = ["ExplainRun", "explain_cohort", "scores_to_explain"]

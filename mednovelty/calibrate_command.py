"""The ``calibrate`` command, and ``fit --calibrate``: held-out normals make p-values of scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty import console
from mednovelty.calibrate.calibration import Calibration
from mednovelty.calibrate.files import RECORD, load_calibration
from mednovelty.calibrate.measuring import (
    CalibrateSettings,
    Pair,
    each_left_out,
    held_out_by,
    measured,
    normals_among,
    validated_on,
)
from mednovelty.errors import DetectorError, OutputError, SettingsError
from mednovelty.pvalue_maps import how_scored
from mednovelty.settings import parse_assignments

if TYPE_CHECKING:
    from mednovelty.detector import Detector
    from mednovelty.fit_command import FitRequest
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import Kind

log = logging.getLogger("mednovelty")

VALIDATION, LEAVE_ONE_OUT = "validation", "leave-one-out"


@dataclass(frozen=True)
class CalibrateRequest:
    """What ``calibrate`` was asked for."""

    model: Path
    folder: Path | None = None
    leave_one_out: bool = False
    scores: str | None = None
    regions: str = "one"
    assignments: Sequence[str] = ()
    masks: Path | None = None
    fold: int | None = None
    brain_masks: Path | None = None
    mask_maker: str | None = None
    overwrite: bool = False
    device: str = "auto"
    threads: int | None = None
    as_json: bool = False


def calibrate(request: CalibrateRequest) -> int:
    """Calibrate a detector, or tell of its calibration; return the exit code."""
    from mednovelty.detector import Detector
    from mednovelty.fit_command import names_of
    from mednovelty.lesion_masks import lesions_in
    from mednovelty.report.detector_page import try_detector_page

    if request.folder is None:
        return _tell_standing(request)
    detector = Detector.load(request.model).to(request.device)
    if request.assignments:
        detector = detector.with_scoring(parse_assignments(request.assignments), where="--set")
    if (request.model / RECORD).exists() and not request.overwrite:
        raise OutputError(f"{request.model / RECORD}: is calibrated already; pass --overwrite to do it anew")
    scans, options = _normals(detector, request)
    names = () if request.scores is None else tuple(names_of(request.scores))
    ids = [files.id for files in scans]
    lesions = None
    if request.masks is not None:
        lesions = lesions_in(request.masks, ids, request.model, each=False)
    settings = CalibrateSettings(names, _regions(request.regions), lesions, options)
    settings.names_of(detector)
    console.set_threads(request.threads)
    if request.leave_one_out:
        _refuse_annotated(detector)
        normals = normals_among(detector, scans)
        fit = partial(_fitted_again, detector, {"lesions": lesions}, options=options)
        method, pairs = "leave-one-scan-out", each_left_out(normals, fit)
    else:
        left, notes = held_out_by(detector, scans)
        for note in notes:
            log.info("%s", note)
        method, pairs = "held-out scans", ((detector, files) for files in left)
    calibration, failures = _carried_out(pairs, detector, request.model, method, settings)
    try_detector_page(request.model)
    if request.as_json:
        console.print_json(_told(calibration) | {"failures": failures})
    return 6 if failures else 0


@dataclass(frozen=True)
class Plan:
    """How a detector is to be calibrated once it is fitted.

    Attributes:
        request: Of the fit.
        scans: Of the fit.
        others: Normals that are given for it alone; None: those of the fit serve.
    """

    request: FitRequest
    scans: Any
    others: Any = None

    @classmethod
    def of(cls, request: FitRequest, scans: Any, find: Callable[..., Any]) -> Plan | None:
        """Return the plan of a request, None where it asks for none; what is wrong is said before training.

        Args:
            request: Of the fit.
            scans: Of the fit.
            find: Gives the scans of a folder.

        Raises:
            ScanError: There is no scan in the folder of normals.
            SettingsError: No folder of label images, or nobody to be left out.
        """
        if request.calibrate is None:
            return None
        _regions(request.regions)
        if request.calibrate == VALIDATION:
            if len(scans) < 2:
                raise SettingsError(
                    "--calibrate validation: of a single scan none is held out whole; give a folder of others"
                )
            return cls(request, scans)
        if request.calibrate == LEAVE_ONE_OUT:
            if len(scans) < 2:
                raise SettingsError("--calibrate leave-one-out: needs scans of at least two subjects")
            return cls(request, scans)
        folder = Path(request.calibrate)
        if not folder.exists():
            raise SettingsError(
                f"--calibrate {request.calibrate}: neither {VALIDATION} nor {LEAVE_ONE_OUT}, nor a folder"
            )
        return cls(request, scans, find(folder=folder).with_roles("normal", "validation"))

    def carry_out(
        self, detector: Detector, known: Mapping[str, Any], init: Detector | None
    ) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Calibrate a fitted detector; return what is told of it, and which scans failed, and why.

        Args:
            detector: It was saved.
            known: ``lesions``, ``labels`` and ``outliers`` of the fit.
            init: What the fit started from.

        Raises:
            ScanError: No scan can be used.
            SettingsError: None was held out.
        """
        settings = CalibrateSettings((), _regions(self.request.regions), known["lesions"])
        pairs: Iterable[Pair]
        if self.request.calibrate == LEAVE_ONE_OUT:
            fit = partial(_fitted_again, detector, {**known, "init": init})
            method, pairs = "leave-one-scan-out", each_left_out(normals_among(detector, self.scans), fit)
        else:
            method, scans = "validation scans", self.others
            if scans is None:
                scans = validated_on(detector, self.scans)
            else:
                # Masks are those of the scans that are fitted.
                method, settings = "held-out scans", replace(settings, lesion_of=None)
            left, notes = held_out_by(detector, scans)
            for note in notes:
                log.info("%s", note)
            pairs = ((detector, files) for files in left)
        calibration, failures = _carried_out(pairs, detector, self.request.output, method, settings)
        return _told(calibration), failures


def _carried_out(
    pairs: Iterable[Pair], detector: Detector, model: Path, method: str, settings: CalibrateSettings
) -> tuple[Calibration, list[dict[str, str]]]:
    failures: list[dict[str, str]] = []

    def on_scan(scan_id: str, message: str) -> None:
        if message:
            failures.append({"id": scan_id, "message": message})
            log.warning("%s", message)
        else:
            log.info("calibrated with %s", scan_id)

    how = how_scored(detector, settings.options or detector.reading)
    calibration = measured(pairs, detector, model, method=method, how=how, settings=settings, on_scan=on_scan)
    _say(calibration)
    return calibration, failures


def _fitted_again(
    detector: Detector, known: Mapping[str, Any], scans: list[Any], options: ReadOptions | None = None
) -> Detector:
    """Return a detector fitted as another was, on some of its scans."""
    from mednovelty.detector import Detector
    from mednovelty.reference import device_of

    # The network is chosen already.
    settings = replace(detector.settings, candidates=())
    contrasts = list(detector.contrasts) or None
    return Detector.fit(scans, recipe=detector.recipe, contrasts=contrasts, seed=detector.seed,
                        settings=settings, options=options, device=device_of(detector.model),
                        **known)  # fmt: skip


def _normals(detector: Detector, request: CalibrateRequest) -> tuple[Any, ReadOptions]:
    """Return the scans of a request, those of a fold's tests left out, and how they are read."""
    from mednovelty.fit_command import find_scans_of
    from mednovelty.io.folds import of_fold
    from mednovelty.io.read_scan import with_mask_maker

    assert request.folder is not None
    kind: Kind = "structural" if detector.contrasts else "dwi"
    scans = find_scans_of(kind, request.folder, detector.contrasts, request.brain_masks)
    scans, _ = of_fold(scans, request.fold)
    scans = scans.with_roles("normal", "validation")
    console.say_skipped(scans)
    options = detector.reading
    if request.mask_maker is not None:
        options = with_mask_maker(options, request.mask_maker)
    return scans, options


def _regions(asked: str) -> str | Path:
    if asked in ("one", "classes"):
        return asked
    if not Path(asked).is_dir():
        raise SettingsError(f"--regions {asked}: neither one nor classes, nor a folder of label images")
    return Path(asked)


def _refuse_annotated(detector: Detector) -> None:
    """Raise where a detector cannot be fitted again from its scans alone."""
    known = [scan.id for scan in detector.scans if scan.annotation]
    if known or detector.origin is not None:
        raise SettingsError(
            "--leave-one-out: fitting again needs all that fit was given, and this detector "
            + ("started from another" if detector.origin is not None else f"knew more of {known[0]}")
            + "; fit it with --calibrate leave-one-out"
        )


def _told(calibration: Calibration) -> dict[str, Any]:
    return {
        "sha256": calibration.sha256,
        "method": calibration.method,
        "scans": [scan.id for scan in calibration.scans],
        "regions": calibration.regions.kind,
        "scores": {score: calibration.about(score) for score in calibration.scores},
    }


def _say(calibration: Calibration) -> None:
    voxels = sum(scan.n_voxels for scan in calibration.scans)
    count = len(calibration.scans)
    log.info("calibrated %s on %s: %d voxels of %d scan%s; the smallest p of a voxel is %.2g, of a scan %.2g",
             ", ".join(calibration.scores), calibration.method, voxels, count, "s" * (count > 1),
             max(map(calibration.smallest_p, calibration.scores)), calibration.smallest_scan_p)  # fmt: skip
    told = (text for score in calibration.scores for text in calibration.warnings(score))
    for warning in dict.fromkeys(told):
        log.warning("%s", warning)


def _tell_standing(request: CalibrateRequest) -> int:
    """Print the calibration that is there."""
    from mednovelty.detector import Detector

    detector = Detector.load(request.model)
    calibration = load_calibration(request.model)
    if calibration is None:
        raise DetectorError(
            f"{request.model}: not calibrated; give a folder of normal scans that it was not trained on"
        )
    if calibration.detector_sha256 != detector.sha256:
        raise DetectorError(
            f"{request.model / RECORD}: belongs to another detector; calibrate this one, with --overwrite"
        )
    if request.as_json:
        console.print_json(_told(calibration))
        return 0
    print(f"{calibration.method}: {', '.join(scan.id for scan in calibration.scans)}")
    for score in calibration.scores:
        about = calibration.about(score)
        print(f"{score}: {about['Voxels']} voxels, smallest p {about['SmallestP']:.2g}")
    _say(calibration)
    return 0


__all__ = ["LEAVE_ONE_OUT", "VALIDATION", "CalibrateRequest", "Plan", "calibrate"]

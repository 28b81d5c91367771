"""The ``fit`` command: refuse early, read, train, write."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mednovelty import console
from mednovelty.errors import DetectorError, OutputError, SettingsError
from mednovelty.fit_knowledge import labels_of, outliers_of
from mednovelty.io.folds import of_fold
from mednovelty.settings import parse_assignments, read_toml

if TYPE_CHECKING:
    from mednovelty.io.scan_folder import Kind, ScanList

log = logging.getLogger("mednovelty")

TUNED = ("nln",)
"""Groups of scores whose settings can be chosen on held-out normals."""


@dataclass(frozen=True)
class FitRequest:
    """What ``fit`` was asked for."""

    folder: Path
    output: Path
    recipe: str = "qspace"
    seed: int = 0
    settings: Path | None = None
    overrides: dict[str, Any] | None = None
    brain_masks: Path | None = None
    contrasts: str | None = None
    masks: Path | None = None
    labels: Path | None = None
    outliers: Path | None = None
    fold: int | None = None
    calibrate: str | None = None
    """``validation``, ``leave-one-out``, or a folder of other normals."""
    regions: str = "one"
    """Of calibration."""
    resume: bool = False
    init: Path | None = None
    overwrite: bool = False
    device: str = "auto"
    threads: int | None = None
    as_json: bool = False
    reports: tuple[Path, ...] = ()
    """Text files in place of scans; see ``words_commands``."""
    embeddings: Path | None = None


def overrides(  # noqa: PLR0913 - an option is an argument
    assignments: list[str] | None,
    *,
    method: str | None = None,
    latent: str | None = None,
    scores: str | None = None,
    reference: str | None = None,
    mask_maker: str | None = None,
    tune: str | None = None,
    preset: str | None = None,
    anomalies: str | None = None,
    held_out: str | None = None,
    lesion_shapes: Path | None = None,
) -> dict[str, Any]:
    """Return the settings that flags ask for; flags win over ``--set``.

    Raises:
        SettingsError: An assignment, or a number of latents, cannot be understood.
    """
    tree = parse_assignments(assignments or [])
    if method is not None:
        tree["method"] = method.replace("-", "_").lower()
    if preset is not None:
        tree["preset"] = preset
    if latent is not None:
        nets = [_net(text) for text in latent.split(",") if text.strip()]
        if len(nets) == 1:
            tree.setdefault("method_settings", {}).update(nets[0])
        else:
            tree["candidates"] = nets
    planted = {"anomalies": anomalies, "held_out": held_out, "lesion_shapes": lesion_shapes}
    for name, value in planted.items():
        if value is not None:
            tree.setdefault("method_settings", {})[name] = str(value)
    if tune is not None:
        if tune not in TUNED:
            raise SettingsError(f"--tune {tune!r}: there is {', '.join(TUNED)} to be tuned")
        tree.setdefault(tune, {})["tune"] = True
    if scores is not None:
        tree["scores"] = names_of(scores)
    if reference is not None:
        tree["reference"] = reference
    if mask_maker is not None:
        tree["structural_mask"] = mask_maker
    return tree


def names_of(scores: str, option: str = "--scores") -> list[str]:
    """Return the names in ``"a,b"``.

    Raises:
        SettingsError: There is none.
    """
    names = [name.strip() for name in scores.split(",") if name.strip()]
    if not names:
        otherwise = ", or ask for all" if option == "--scores" else ""
        raise SettingsError(f"{option} {scores!r} names no score; leave it out{otherwise}")
    return names


def _net(text: str) -> dict[str, Any]:
    """Return the settings of one of the paper's nets."""
    from mednovelty.methods.vae_settings import NETS

    known = {str(latent): latent for latent in NETS}
    if text.strip() not in known:
        raise SettingsError(f"--latent: one or several of {', '.join(known)}, not {text.strip()!r}")
    latent = known[text.strip()]
    return {"hidden": list(NETS[latent]), "latent": latent}


def fit(request: FitRequest) -> int:
    """Train a detector and write its folder; return the exit code."""
    if request.calibrate is None and request.regions != "one":
        raise SettingsError(f"--regions {request.regions}: is of calibration; ask for it with --calibrate")
    if request.reports and request.calibrate is not None:
        raise SettingsError("--calibrate: is for scans, and these are reports")
    if request.reports:
        from mednovelty.words_commands import fit_reports

        return fit_reports(request)
    if request.embeddings is not None:
        raise SettingsError("--embeddings: word vectors are for reports (*.txt), and these are scans")
    return _fit_scans(request)


def _fit_scans(request: FitRequest) -> int:  # noqa: PLR0915 - read from top to bottom
    from mednovelty.calibrate.files import remove_calibration
    from mednovelty.calibrate_command import Plan
    from mednovelty.candidates import remove_checkpoints
    from mednovelty.detector import Detector
    from mednovelty.devices import chosen
    from mednovelty.lesion_masks import lesions_in
    from mednovelty.live_training import both, training_shown
    from mednovelty.model_folder import fit_settings
    from mednovelty.plugins import plugin
    from mednovelty.recipes import recipe_of
    from mednovelty.report.detector_page import try_detector_page
    from mednovelty.views import samples_of

    recipe = recipe_of(request.recipe)
    device = chosen(request.device)
    _refuse_what_is_there(request)
    init = None if request.init is None else Detector.load(request.init)
    layers = [read_toml(request.settings)] if request.settings else []
    where = str(request.settings or "--set")
    settings = fit_settings(*layers, request.overrides or {}, where=where, recipe=request.recipe)
    scans = find_scans_of(recipe.scans, request.folder, request.contrasts, request.brain_masks)
    every = scans
    scans, fold = of_fold(scans, request.fold)
    kept_out = sum(files.role == "test" for files in scans)
    scans = scans.with_roles("normal", "validation")
    console.say_skipped(scans)
    _refuse_folder_of_scans(scans, request.output)
    ids, masks = [files.id for files in scans], request.masks
    labelled = settings.annotations.lesions == "label"
    labelled = labelled and bool(getattr(plugin("methods", settings.method), "semi_labels", ()))
    whose = [files.id for files in every]
    lesions = None if masks is None else lesions_in(masks, whose, request.output, each=not labelled)
    labels = labels_of(request.labels, every, ids, settings)
    find = partial(find_scans_of, recipe.scans, contrasts=request.contrasts, brain_masks=None)
    outliers = outliers_of(request.outliers, recipe, scans, settings, find)
    plan = Plan.of(request, scans, find)
    _make_writable(request.output)
    console.set_threads(request.threads)
    failures: list[dict[str, str]] = []

    def on_scan(scan_id: str, message: str) -> None:
        if message:
            failures.append({"id": scan_id, "message": message})
            log.warning("%s", message)
        else:
            log.info("read %s", scan_id)

    console.log_to_folder(request.output)
    with (
        training_shown(settings.train.max_epochs, samples_of(settings.view)) as shown,
        page_of(request, settings) as page,
    ):
        detector = Detector.fit(
            scans,
            recipe=request.recipe,
            lesions=lesions,
            labels=labels,
            outliers=outliers,
            seed=request.seed,
            settings=settings,
            folder=request.output,
            resume=request.resume,
            init=init,
            on_epoch=both(shown.epoch, page.epoch),
            on_scan=on_scan,
            on_reference=shown.reference,
            device=device,
        )
    if fold:
        kept = f"{fold.words}; its {kept_out} scans were kept out"
        detector = replace(detector, notes=(*detector.notes, kept))
    remove_calibration(request.output)
    detector = detector.save(request.output)
    remove_checkpoints(request.output)
    _tell(detector, request)
    told: dict[str, Any] = {"folder": str(request.output), "sha256": detector.sha256}
    told |= {"summary": detector.fitted.summary, "notes": detector.notes, "failures": failures}
    if plan is not None:
        known = {"lesions": lesions, "labels": labels, "outliers": outliers}
        told["calibration"], more = plan.carry_out(detector, known, init)
        failures += more
    try_detector_page(request.output)
    if request.as_json:
        console.print_json(told)
    return 6 if failures else 0


def find_scans_of(
    kind: Kind, folder: Path, contrasts: str | Sequence[str] | None, brain_masks: Path | None
) -> ScanList:
    """Return the scans of a folder: ``dwi``, or ``structural`` with some contrasts, ``"FLAIR,T1w"``.

    Raises:
        ScanError: No scan is there.
        SettingsError: Contrasts of diffusion scans, or a folder of brain masks that is not there.
    """
    from mednovelty.io.scan_folder import scan_folder

    contrasts = contrasts_in(contrasts)
    if kind == "dwi" and contrasts:
        raise SettingsError("--contrasts is for structural scans; diffusion scans have gradients")
    return scan_folder(folder, brain_masks=brain_masks, kind=kind, contrasts=contrasts)


def contrasts_in(text: str | Sequence[str] | None) -> list[str] | None:
    """Return the names in ``"FLAIR,T1w"``, or those given; None where there are none.

    Examples:
        >>> contrasts_in("FLAIR, T1w"), contrasts_in(("CT",)), contrasts_in("")
        (['FLAIR', 'T1w'], ['CT'], None)
    """
    names = text.split(",") if isinstance(text, str) else text or ()
    return [name.strip() for name in names if name.strip()] or None


@contextmanager
def page_of(request: FitRequest, settings: Any) -> Iterator[Any]:
    """Yield the page of a training; one that does not come to its end says so on the page."""
    from mednovelty.report.detector_page import TrainingPage

    told = {"recipe": request.recipe, "method": settings.method, "seed": str(request.seed),
            "learning rate": f"{settings.train.learning_rate:g}"}  # fmt: skip
    page = TrainingPage(request.output, told, settings.train.max_epochs)
    try:
        yield page
    except BaseException:
        page.stopped()
        raise


def _tell(detector: Any, request: FitRequest) -> None:
    summary = detector.fitted.summary
    console.tell_alike(detector.notes)
    say = log.warning if summary["collapsed"] else log.info
    if "choice" in summary:
        log.info("%s", summary["choice"])
    say("%s", summary["verdict"])
    if "nln" in summary.get("tuned", {}):
        from mednovelty.tuning import told_in_words

        log.info("nln: %s", told_in_words(summary["tuned"]["nln"]))
    log.info("wrote %s", request.output)


def _refuse_what_is_there(request: FitRequest) -> None:
    """Raise where the folder holds a detector, a checkpoint, or somebody's files that would be replaced."""
    from mednovelty.calibrate.files import RECORD as CALIBRATION
    from mednovelty.calibrate.files import TENSORS
    from mednovelty.candidates import checkpoints, remove_checkpoints
    from mednovelty.held_out_examples import EXAMPLES
    from mednovelty.model_folder import CARD, CURVE_CSV, CURVE_PNG
    from mednovelty.store import RECORD, REFERENCE, SEARCHES, WEIGHTS

    output, standing = request.output, checkpoints(request.output)
    if request.resume and not standing:
        raise DetectorError(f"{output}: nothing to resume: it holds no checkpoint; leave --resume out")
    if request.overwrite:
        if not request.resume:
            with suppress(OSError):  # What cannot be removed cannot be written either, and that is told.
                remove_checkpoints(output)
        return
    if (output / RECORD).exists():
        raise OutputError(
            f"{output / RECORD}: a detector is there already; choose another folder or pass --overwrite"
        )
    if standing and not request.resume:
        raise OutputError(
            f"{standing[0]}: an earlier fit was stopped here; pass --resume to go on from it, or --overwrite"
        )
    ours = (CARD, CURVE_CSV, CURVE_PNG, EXAMPLES, WEIGHTS, REFERENCE, SEARCHES, CALIBRATION, TENSORS)
    theirs = [name for name in ours if (output / name).exists()]
    if theirs and not standing:
        raise OutputError(
            f"{output / theirs[0]}: would be replaced, and {output} holds no detector; "
            "choose another folder or pass --overwrite"
        )


def _refuse_folder_of_scans(scans: Any, output: Path) -> None:
    images = [path for files in scans for path in (files.image, *(path for _, path in files.contrasts))]
    inputs = {os.path.realpath(path.parent) for path in images} | {os.path.realpath(scans.root)}
    if os.path.realpath(output) in inputs:
        raise OutputError(f"{output}: is a folder that scans are read from; choose another for the detector")


def _make_writable(folder: Path) -> None:
    """Make the folder, and find out whether it can be written before hours are spent."""
    probe = folder / f".mednovelty-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error

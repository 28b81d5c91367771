"""From maps and masks to numbers, one map in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.errors import ScanError
from mednovelty.evaluation.files import find_maps, find_masks, manifest_masks
from mednovelty.evaluation.result import EvaluateSettings, Evaluation
from mednovelty.evaluation.right_reason import Reason, reasons
from mednovelty.evaluation.scored import ScoredScan
from mednovelty.evaluation.study import Study
from mednovelty.evaluation.together import combine, pairs_of
from mednovelty.evaluation.truth import Truth, read_truth
from mednovelty.io.guard import sha256_of_file, shown
from mednovelty.io.manifest import Manifest, manifest_or_folder


def evaluate(
    out: str | Path,
    masks: str | Path | Manifest,
    *,
    settings: EvaluateSettings | None = None,
    relevance: str | Path | None = None,
    together: Sequence[Any] = (),
) -> Evaluation:
    """Compare the maps of a score run with lesion masks, inside each scan's brain mask.

    Args:
        out: The folder that ``score`` wrote to.
        masks: The folder of lesion masks, whose names tell which scan each belongs to; or a data manifest
            (``*.toml``), which says where each lies; or one that was read.
        settings: Seed and bootstrap.
        relevance: The folder that ``explain`` wrote to, for Clever Hans scores; None: without them.
        together: Two scores, ``("A", "B")``, whose maps are also rated as one, ``A+B``, see
            ``evaluation.together``; or any number of such pairs. Nothing is written.

    A scan whose masks cannot be used, and a map that cannot, is left out with a warning.

    Raises:
        ScanError: No maps, no mask for any scan, or no scan with masks and a map that can be used; where
            only one thing was wrong, its own error (``GeometryError`` for other voxels). No relevance.
        SettingsError: The manifest is wrong, or names no lesion masks; or there are no maps of two scores
            that are to be rated together.
    """
    settings, out = settings or EvaluateSettings(), Path(out)
    found, warnings = find_maps(out)
    pairs = pairs_of(together, found)
    owned, strangers = _masks(masks, found, out)
    combine(found.values(), pairs)
    errors: list[ScanError] = []
    truths = _truths({id: (found[id], owned[id]) for id in found if id in owned}, warnings, errors)
    study = Study(truths, settings, errors)
    rated = {score: study.rate(score) for score in sorted({s for t in study.truths for s in t.files.scores})}
    rated = {score: found for score, found in rated.items() if found.rows}
    if not rated:
        raise _nothing_left(out, errors)
    why: dict[str, Reason] = {}
    if relevance is not None:
        why, told = reasons(Path(relevance), study.truths, rated, settings.diseased_voxels)
        warnings += told
    without = tuple(id for id in found if id not in owned)
    unknown = tuple(shown(path) for path in strangers)
    return Evaluation(
        scans={
            id: {score: found.rows[id] for score, found in rated.items() if id in found.rows}
            for id in sorted({id for found in rated.values() for id in found.rows})
        },
        curves={score: found.curves for score, found in rated.items()},
        settings=settings,
        fifth=study.fifth,
        rated=rated,
        lesions={truth.id: _lesion_facts(truth) for truth in study.truths},
        trivial=frozenset(
            score for truth in study.truths for score, made in truth.files.made.items() if made.trivial
        ),
        warnings=(
            *warnings,
            *study.warnings(),
            *_taught(study.truths),
            *_planted({truth.id: (truth, owned[truth.id]) for truth in study.truths}),
            *_left_out(without, unknown),
        ),
        scans_without_mask=without,
        masks_without_scan=unknown,
        reasons=why,
        sources={truth.id: (truth.files, owned[truth.id]) for truth in study.truths},
        together={name: pair for pair in pairs if (name := "+".join(pair)) in rated},
    )


def _masks(
    masks: str | Path | Manifest, found: dict[str, ScoredScan], out: Path
) -> tuple[dict[str, Path], list[Path]]:
    """Return the lesion masks by scan id, at least one, and those that fit no scan."""
    given = manifest_or_folder(masks)
    if isinstance(given, Manifest):
        owned, strangers = manifest_masks(given, found)
        where, names = given.path, str(given.root / given.masks)
    else:
        owned, strangers = find_masks(given, found, besides=out)
        where, names = given, "<scan>_mask.nii.gz"
    if not owned:
        raise ScanError(
            f"{where}: no lesion mask fits a scan of {out}: scans {_some(found)}; "
            f"masks {_some(shown(path) for path in strangers)}; call them {names}",
            code="masks.none",
        )
    return owned, strangers


def _truths(
    files: dict[str, tuple[ScoredScan, Path]], warnings: list[str], errors: list[ScanError]
) -> list[Truth]:
    """Return the scans whose masks can be used; the others go into the errors and the warnings."""
    truths = []
    for id, (scored, mask) in files.items():
        try:
            truth, remarks = read_truth(scored, mask)
        except ScanError as error:
            errors.append(error)
            warnings.append(f"{error}; {id} is left out")
        else:
            truths.append(truth)
            warnings += remarks
    return truths


def _nothing_left(out: Path, errors: list[ScanError]) -> ScanError:
    if len(errors) == 1:
        return errors[0]
    reasons = _some([str(error) for error in errors], most=3)
    return ScanError(f"{out}: no scan can be evaluated: {reasons}", code="evaluation.none")


def _lesion_facts(truth: Truth) -> list[dict[str, float]]:
    """Return each lesion's size and where its centre is, in RAS+ millimetres."""
    centres_mm = truth.lesions.centres @ truth.grid.affine[:3, :3].T + truth.grid.affine[:3, 3]
    voxel_mm3 = abs(float(np.linalg.det(truth.grid.affine[:3, :3])))
    return [
        {"voxels": int(n), "volume_mm3": n * voxel_mm3, "x_mm": x, "y_mm": y, "z_mm": z}
        for n, (x, y, z) in zip(truth.lesions.voxels.tolist(), centres_mm.tolist(), strict=True)
    ]


def _taught(truths: list[Truth]) -> list[str]:
    """Say which scans detectors were told of, and which scores only some maps of are semi-supervised."""
    said = []
    for truth in truths:
        scores = [
            score for score, made in truth.files.made.items() if made.semi_supervised and made.annotated
        ]
        if scores:
            told = truth.files.made[scores[0]].annotated
            said.append(
                f"{truth.id}: the detector of {', '.join(scores)} was trained with annotations of this very "
                f"scan ({told}); its maps of this scan are no test"
            )
    for score in sorted({score for truth in truths for score in truth.files.maps}):
        told_by = [
            made.semi_supervised for truth in truths if (made := truth.files.made.get(score)) is not None
        ]
        if 0 < (semi := told_by.count(True)) < len(told_by):
            said.append(
                f"{score}: {semi} of its {len(told_by)} maps are of detectors that were shown annotated "
                "scans, the others not; all of it counts as semi-supervised"
            )
    return said


def _planted(truths: dict[str, tuple[Truth, Path]]) -> list[str]:
    """Say whose outlines a detector was trained on; a mask that was saved anew is not known again."""
    known: dict[str, list[str]] = {}
    for id, (truth, mask) in truths.items():
        planted = {score: made.outlines for score, made in truth.files.made.items() if made.outlines}
        if planted:
            sha256 = sha256_of_file(mask)
            for score in (score for score, outlines in planted.items() if sha256 in outlines):
                known.setdefault(score, []).append(id)
    return [
        f"{score}: the outlines of the lesions of {_some(ids)} were planted when its detector was trained "
        "(--lesion-shapes); it may know their shapes, so leave those scans out of a test"
        for score, ids in known.items()
    ]


def _left_out(without: tuple[str, ...], strangers: tuple[str, ...]) -> list[str]:
    said = []
    if without:
        said.append(f"{len(without)} scans have no lesion mask and are not evaluated: {_some(without)}")
    if strangers:
        said.append(f"{len(strangers)} masks fit no scan: {_some(strangers)}")
    return said


def _some(names: Iterable[str], most: int = 10) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) or "none") + more

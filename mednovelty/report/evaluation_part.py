"""What ``evaluate`` left in a folder of maps, as a part of its page: tables, verdicts, ROC curves."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mednovelty.errors import ScanError
from mednovelty.outputs import told
from mednovelty.report.page import Cell, Picture, Table, number
from mednovelty.report.planes import palette_png
from mednovelty.report.scan_facts import ScanFacts, as_dict, as_list

MEASURES = (
    ("auroc", "AUROC"),
    ("ap", "AP"),
    ("fpr_at_95_lesion_tpr", "healthy flagged at 95 % lesion found"),
    ("dice_best", "Dice, best"),
    ("dice_fifth", "Dice, by a fifth"),
    ("lesion_recall_at_fpr_1_in_100", "lesions found, 1 % flagged"),
)
MOST_NAMED = 5
"""Scans; more are counted."""
LONGEST = 1300
"""Pixels of a picture's width; those of an evaluation of many scans are larger."""
MOST_PER_SCORE = 3
"""Scores with pictures of their own, the best by AP."""


def evaluation_part(folder: Path, scans: Sequence[ScanFacts] = ()) -> dict[str, Any] | None:
    """Return what is shown of an evaluation; None where there is none.

    Args:
        folder: Where it lies.
        scans: Those that lie in the folder of maps now.

    In the place of a picture that is damaged stands what is wrong with it.
    """
    found = told(folder / "evaluation.json")
    if not found:
        return None
    mean, pooled = as_dict(found.get("mean")), as_dict(found.get("pooled"))
    trivial = {str(name) for name in as_list(found.get("trivial"))}
    names = as_dict(found.get("names"))
    meanings = as_dict(found.get("metrics"))
    ranked = sorted(mean, key=lambda score: (score in trivial, -_value(as_dict(mean[score]).get("ap"))))
    n = len(as_dict(found.get("scans")))
    by_scan = _table(
        mean, ranked, (names, meanings, trivial), f"Mean over {n} scans, 95 % interval over subjects"
    )
    all_voxels = _table(pooled, ranked, (names, meanings, trivial), "All scans pooled")
    own = [score for score in ranked if score not in trivial][:MOST_PER_SCORE]
    texts = [*as_list(found.get("verdicts")), *as_list(found.get("verdicts_pooled"))]
    trained = [as_dict(one) for one in as_list(found.get("trained_to_find"))]
    panels = (
        "The first patients: background, best trivial baseline, best scores; lesions are outlined, and "
        "average precision stands over each map."
    )
    return {
        "tables": [table for table in (by_scan, all_voxels) if table is not None],
        "verdicts": [str(text) for text in texts],
        "found_words": [f"{one.get('method')}: trained to find {one.get('words')}" for one in trained],
        "warnings": [str(text) for text in as_list(found.get("warnings"))],
        "outdated": _outdated(found, scans),
        "roc": _picture(folder / "roc.png", _roc_alt(mean, ranked)),
        "panels": _picture(folder / "panels.png", panels),
        "by_score": [(score, [one for one in _of_score(folder, score, mean) if one]) for score in own],
    }


def _outdated(found: Mapping[str, Any], scans: Sequence[ScanFacts]) -> str:
    """Say where an evaluation is of other maps than those that lie there now; empty where it is of these."""
    rated, maps = as_dict(found.get("scans")), as_dict(found.get("maps"))
    now = {scan.id: {one.name: one.sidecar.get("MapSha256") for one in scan.maps} for scan in scans}
    here = [id for id in rated if id in now]
    groups = {
        "of scans that are not here": [id for id in rated if id not in now],
        "of other maps": [id for id in here if _differ(as_dict(rated[id]), as_dict(maps.get(id)), now[id])],
    }
    told_of = [f"{what}: {_some(ids)}" for what, ids in groups.items() if ids]
    if not told_of:
        return ""
    return f"The evaluation is outdated: {'; '.join(told_of)}. Run mednovelty evaluate again."


def _differ(rated: Mapping[str, Any], hashes: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a map that was rated has gone or changed; of a combination there are no files."""
    gone = any(score not in now for score in (hashes or rated) if "+" not in score)
    return gone or any(now[score] not in (None, sha256) for score, sha256 in hashes.items())


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(ids[:MOST_NAMED]) + more


def _table(
    rows: Mapping[str, Any], ranked: list[str], how: tuple[Mapping[str, Any], Mapping[str, Any], set[str]],
    caption: str,
) -> Table | None:  # fmt: skip
    names, meanings, trivial = how
    known = [key for key, _ in MEASURES if any(key in as_dict(row) for row in rows.values())]
    if not known:
        return None
    columns = [
        ("score", ""),
        *((words, str(meanings.get(key, ""))) for key, words in MEASURES if key in known),
    ]
    cells = []
    for score in (score for score in ranked if score in rows):
        called = f"{names.get(score, score)}{' (trivial)' if score in trivial else ''}"
        cells.append([Cell(called), *(_measured(as_dict(rows[score]), key) for key in known)])
    return Table(columns, cells, caption)


def _measured(row: Mapping[str, Any], key: str) -> Cell:
    cell, interval = number(row.get(key)), as_list(row.get(f"{key}_interval"))
    if cell.key is None or math.isnan(cell.key):
        return cell
    between = ""
    if len(interval) == 2 and all(isinstance(end, int | float) for end in interval):
        between = f" ({interval[0]:.2f}-{interval[1]:.2f})"
    return Cell(f"{cell.key:.3f}{between}", cell.key)


def _roc_alt(mean: Mapping[str, Any], ranked: list[str]) -> str:
    told_of = ", ".join(f"{score} {_value(as_dict(mean[score]).get('auroc')):.3f}" for score in ranked[:8])
    return f"ROC curves by voxel, mean over scans; areas under them: {told_of}."


def _of_score(folder: Path, score: str, mean: Mapping[str, Any]) -> list[Picture | str | None]:
    from mednovelty.report.figures import file_part

    part, area = file_part(score), _value(as_dict(mean[score]).get("auroc"))
    return [
        _picture(
            folder / f"roc_{part}.png", f"ROC curves of {score}, a line a scan; the mean area is {area:.3f}."
        ),
        _picture(folder / f"histogram_{part}.png", f"Histograms of {score} in lesion and in other voxels."),
    ]


def _picture(path: Path, alt: str) -> Picture | str | None:
    """Return a picture, or why it cannot be shown; None where there is none."""
    try:
        return Picture(shrunk(path, LONGEST), alt) if path.is_file() else None
    except ScanError as error:
        return f"{error} with mednovelty evaluate"


def shrunk(path: Path, longest: int) -> bytes:
    """Return a PNG file with a palette, no wider than ``longest``.

    Raises:
        ScanError: It is no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=("PNG",)) as picture:
            plain = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise ScanError(f"{path.name}: is no picture; remove it, and make it again",
                        code="file.damaged") from error  # fmt: skip
    if plain.width > longest:
        plain = plain.resize((longest, round(plain.height * longest / plain.width)), Image.Resampling.LANCZOS)
    return palette_png(plain)


def _value(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


__all__ = ["evaluation_part", "shrunk"]

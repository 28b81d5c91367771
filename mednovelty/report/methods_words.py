"""How maps were made, in words that a paper's methods section could begin with, and its references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mednovelty.papers import METHODS, PAPERS
from mednovelty.report.scan_facts import MapFacts, ScanFacts, as_dict, as_list

CONFORMAL = (
    "Vovk V, Gammerman A, Shafer G. Algorithmic Learning in a Random World. Springer, 2005.",
    "Bates S et al. Testing for outliers with conformal p-values. Annals of Statistics 51, 2023. "
    "arXiv:2104.08279",
)
FDR = ("Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to "
       "multiple testing. J. R. Stat. Soc. B 57, 1995.")  # fmt: skip
OWN = {"synthetic_lesions": "the families of anomalies that it plants are mednovelty's own"}
"""Of methods, what has no source."""
MASK_MAKERS = {"median_otsu": "garyfallidis2014"}
"""By what the origin of a mask holds, who made it."""
PACKAGES = ("mednovelty", "Python", "torch", "numpy", "nibabel", "dipy", "faiss-cpu")


def methods(facts: ScanFacts) -> list[str]:
    """Return paragraphs on how a scan's maps were made."""
    sidecar = facts.sidecar
    made = [_scan_words(sidecar), _detector_words(sidecar)]
    made += [_score_words(one) for one in facts.maps if not one.is_trivial]
    trivial = [one.name for one in facts.maps if one.is_trivial]
    if trivial:
        made.append(f"Trivial baselines, which look at no model: {', '.join(trivial)}.")
    calibrated = [one for one in facts.maps if one.is_calibrated]
    made += _calibration_words(calibrated)
    made += _threshold_words([one for one in facts.maps if one.threshold_words])
    return [text for text in made if text]


def references(facts: ScanFacts) -> list[str]:
    """Return the sources of method, scores, mask, p-values and thresholds; no address is a link."""
    made, origin = METHODS.get(_method(facts.sidecar), ()), _mask_origin(facts.sidecar)
    of_scores = [str(one.score.get("paper") or "") for one in facts.maps]
    of_mask = [key for name, key in MASK_MAKERS.items() if name in origin]
    keys = dict.fromkeys([*made, *of_scores, *of_mask])
    found = [_reference(key) for key in keys if key in PAPERS]
    if any(one.is_calibrated for one in facts.maps):
        found += CONFORMAL
    if any(as_dict(one.segmentation.get("Threshold")).get("Rule") == "fdr" for one in facts.maps):
        found.append(FDR)
    return found


def versions(sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return versions and numerics of the run that scored, as its sidecar tells."""
    environment = as_dict(sidecar.get("Environment"))
    rows = [(name, str(environment[name])) for name in PACKAGES if environment.get(name)]
    for name in ("Device", "Dtype", "Threads", "Seed", "BatchVoxels", "Draws"):
        if environment.get(name) is not None:
            rows.append((re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower(), str(environment[name])))
    return rows


def settings_rows(facts: ScanFacts) -> list[tuple[str, str]]:
    """Return geometry, hashes and the command that made the maps."""
    sidecar = facts.sidecar
    geometry, by = as_dict(sidecar.get("Geometry")), as_dict(sidecar.get("GeneratedBy"))
    runtime = as_dict(sidecar.get("Runtime"))
    rows = [
        ("voxels along each axis", " x ".join(str(n) for n in as_list(geometry.get("Shape")))),
        ("voxel size", " x ".join(_short(n) for n in as_list(geometry.get("SpacingMm"))) + " mm"),
        ("command", str(by.get("CommandLine") or "")),
        ("detector sha256", str(sidecar.get("DetectorSha256") or "")),
        ("image sha256", str(sidecar.get("InputSha256") or "")),
        ("settings sha256", str(sidecar.get("SettingsSha256") or "")),
        ("seconds", str(runtime.get("Seconds") or "")),
        ("peak memory, MiB", str(runtime.get("PeakMiB") or "")),
    ]
    return [(name, value) for name, value in rows if value.strip() not in ("", "mm")]


def _scan_words(sidecar: Mapping[str, Any]) -> str:
    mask = as_dict(sidecar.get("Mask"))
    scheme = as_dict(sidecar.get("Gradients")).get("Scheme")
    what = f"A diffusion scan ({scheme})" if scheme else "A structural scan"
    n = mask.get("Voxels")
    count = f"{n:,} voxels" if isinstance(n, int) else "the voxels"
    return f"{what} was scored in {count} of a mask, made by: {_mask_origin(sidecar) or 'not told'}."


def _detector_words(sidecar: Mapping[str, Any]) -> str:
    method, n = _method(sidecar), as_dict(sidecar.get("Detector")).get("ReferenceVoxels")
    if not method:
        return ""
    reference = f", with a reference of {n:,} samples of these" if isinstance(n, int) and n else ""
    semi = as_dict(sidecar.get("Score")).get("semi_supervised")
    shown = " It was also shown what is abnormal: scores are semi-supervised." if semi else ""
    return (
        f"The detector is of the method {method}{_sources(method)}, trained on scans that were taken to be "
        f"healthy{reference}.{shown}"
    )


def _method(sidecar: Mapping[str, Any]) -> str:
    return str(as_dict(sidecar.get("Detector")).get("Method") or "")


def _mask_origin(sidecar: Mapping[str, Any]) -> str:
    return str(as_dict(sidecar.get("Mask")).get("Source") or "")


def _sources(method: str) -> str:
    papers = [_short_paper(key) for key in METHODS.get(method, ())]
    parts = [*papers, *([OWN[method]] if method in OWN else [])]
    return f" ({'; '.join(parts)})" if parts else ""


def _score_words(one: MapFacts) -> str:
    score = one.score
    source = ", ".join(
        str(part) for part in (_short_paper(score.get("paper")), score.get("equation")) if part
    )
    unit = f" In {one.unit}; {score.get('direction') or 'higher is more novel'}." if one.unit else ""
    prior = as_dict(score.get("prior")).get("words")
    found = f" It was trained to find: {prior}; it is blind to what looks otherwise." if prior else ""
    settings = as_dict(score.get("settings"))
    how = f" Settings: {', '.join(f'{k} = {v}' for k, v in settings.items())}." if settings else ""
    description = str(score.get("description") or one.sidecar.get("Description") or "").rstrip(".")
    return f"{one.name}{f' ({source})' if source else ''}: {description}.{unit}{how}{found}"


def _calibration_words(maps: Sequence[MapFacts]) -> list[str]:
    found: dict[str, list[str]] = {}
    for one in maps:
        told = as_dict(one.sidecar.get("Calibration"))
        smallest = told.get("SmallestP")
        least = f"; the smallest possible is {smallest:.2g}" if isinstance(smallest, float) else ""
        text = (
            "the p-value of a voxel is (1 + number of normal voxels that score as high) / (1 + their "
            f"number), by {told.get('Voxels'):,} voxels of {told.get('Scans')} {told.get('Method')}{least}"
            if isinstance(told.get("Voxels"), int)
            else f"p-values are those of {told.get('Scans')} {told.get('Method')}"
        )
        found.setdefault(text, []).append(one.name)
    return [f"Calibration of {', '.join(names)}: {text}." for text, names in found.items()]


def _threshold_words(maps: Sequence[MapFacts]) -> list[str]:
    found: dict[str, list[str]] = {}
    for one in maps:
        found.setdefault(one.threshold_words, []).append(one.name)
    return [f"Segmentation of {', '.join(names)}: {text}." for text, names in found.items()]


def _reference(key: str) -> str:
    paper = PAPERS[key]
    place = re.sub(r"^https://(arxiv\.org/abs/|doi\.org/)?", "", paper.url)
    kind = "arXiv:" if "arxiv.org" in paper.url else "doi:" if "doi.org" in paper.url else ""
    return f"{paper.authors.rstrip('.')}. {paper.title}. {paper.year}. {kind}{place}"


def _short_paper(key: Any) -> str:
    paper = PAPERS.get(str(key))
    return f"{paper.authors} {paper.year}" if paper else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


__all__ = ["methods", "references", "settings_rows", "versions"]

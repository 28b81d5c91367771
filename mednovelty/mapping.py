"""From a prepared scan to a volume for each score, on the voxels of the scan as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mednovelty.batch import Batch, sample_shape
from mednovelty.errors import SettingsError
from mednovelty.map_settings import MapSettings
from mednovelty.plugins import plugin
from mednovelty.postprocess import masked_median
from mednovelty.preprocess.resample import Resampled
from mednovelty.scan import Scan, Volume
from mednovelty.scoring import Scoring, Tell, describe_score, needs_signal

RAW = "raw_"
SIGNALS_A_BATCH = 1 << 14


class Stages(NamedTuple):
    """A scan on its way."""

    given: Scan
    measured: Scan
    """With channels in the detector's order."""
    prepared: Scan
    """After all preprocessing; on another grid where a step has resampled it."""


def volumes_of(
    scoring: Scoring,
    view: Any,
    scan: Stages,
    names: Sequence[str],
    advance: Callable[[int], Any],
    tell: Tell = lambda name, facts: None,
) -> dict[str, Volume]:
    """Return ``(1, I, J, K)`` volumes by score, on the given scan's voxels.

    Args:
        scoring: What scores.
        view: How the scan is cut; one that can ``stitch`` drives the scoring itself, window by window.
        scan: Its stages.
        names: Which scores; none: nothing is done.
        advance: Told how many more samples were scored.
        tell: Told what scores have to say besides.

    Raises:
        SettingsError: A score looks at a model and at the signal as measured, and samples have voxels within.
    """
    if len(sample_shape(scoring.model)) > 1 and needs_signal(names):
        measured = [name for name in names if needs_signal([name])]
        rest = [name for name in names if name not in measured]
        found = _of_signals(scoring, scan, measured) | volumes_of(scoring, view, scan, rest, advance, tell)
        if not rest:
            advance(scan.measured.n_voxels)
        return {name: found[name] for name in names}
    if not names:
        return {}
    if hasattr(view, "stitch"):
        predict = _of_windows(scoring, names, tell)
        on_processor = scoring.moving(lambda there: _of_windows(there, names, tell))
        found = view.stitch(scan.prepared, predict, advance, device=scoring.device, told=scoring.told,
                            on_processor=on_processor)  # fmt: skip
        return {name: back(found[name], scan) for name in names}
    with_signal = needs_signal(names)

    def cut(start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
        samples = view.cut(scan.prepared, start, stop)
        return samples, scan.measured.voxels(start, stop) if with_signal else None

    values = scoring.run(names, cut, view.count(scan.prepared), advance, tell)
    return {
        name: back(view.assemble(scan.prepared, values.pop(name), f"{name} of {scan.given.id}"), scan)
        for name in names
    }


def _of_signals(scoring: Scoring, scan: Stages, names: Sequence[str]) -> dict[str, Volume]:
    """Return maps of scores that look at each voxel's signal alone, as measured, whatever a sample is."""
    for name in names:
        if "model" in plugin("scorers", name).needs:
            raise SettingsError(
                f"{name}: looks at a model and at the signal as measured, voxel by voxel; slices and windows "
                "have no such signal. Leave it out, or fit with the recipe qspace"
            )
    scorers, measured = scoring.scorers(names), scan.measured
    values = {name: np.empty(measured.n_voxels, np.float32) for name in names}
    for start in range(0, measured.n_voxels, SIGNALS_A_BATCH):
        signal = torch.from_numpy(measured.voxels(start, start + SIGNALS_A_BATCH)).to(scoring.device)
        batch = Batch(signal, signal=signal)
        for name, scorer in scorers.items():
            values[name][start : start + len(signal)] = scorer.score(batch).cpu().numpy()
    return {name: measured.assemble(values[name], f"{name} of {scan.given.id}") for name in names}


def _of_windows(scoring: Scoring, names: Sequence[str], tell: Tell) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return what scores ``(b, C, *size)`` windows."""
    score = scoring.predictor(names, tell)

    @torch.no_grad()
    def predict(windows: Tensor) -> dict[str, Tensor]:
        return score(windows.flatten(1), None)

    return predict


def back(volume: Volume, scan: Stages) -> Volume:
    """Return a map on the voxels of the scan as given, 0 outside its mask."""
    grid = scan.given.grid
    if scan.prepared.grid.shape != grid.shape or not np.allclose(scan.prepared.grid.affine, grid.affine):
        return Resampled(scan.prepared, scan.given.mask, grid).back(volume)
    if scan.prepared.mask is scan.given.mask:
        return volume
    return volume.with_data(np.where(scan.given.mask, volume.data, np.float32(0)), volume.name)


def judged(
    scoring: Scoring, view: Any, scan: Stages, name: str, advance: Callable[[int], Any]
) -> tuple[Volume, dict[str, Volume], Mapping[str, Any]]:
    """Return a scan scorer's map, its further images by name, and what it says of the scan as a whole.

    Arguments are as of ``volumes_of``; ``advance`` is told once.
    """
    scorer, count = plugin("scan_scorers", name)(scoring.model), view.count(scan.prepared)

    def blocks() -> Iterator[Tensor]:
        for start in range(0, count, scoring.batch_voxels):
            block = view.cut(scan.prepared, start, min(start + scoring.batch_voxels, count))
            yield torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32))

    def volume(values: np.ndarray, what: str) -> Volume:
        return back(view.assemble(scan.prepared, values, f"{what} of {scan.given.id}"), scan)

    found = scorer.judge(blocks)
    advance(count)
    images = {image: volume(values, image) for image, values in found.images.items()}
    return volume(found.scores, name), images, found.told


def raw_volume(scan: Scan, name: str) -> Volume:
    """Return a contrast's intensity as measured, ``(1, I, J, K)`` float32, 0 outside the mask."""
    channel = scan.contrasts.index(name.removeprefix(RAW))
    return scan.assemble(scan.take(np.array([channel]), None).voxels()[:, 0], f"{name} of {scan.id}")


def finished(
    volumes: Mapping[str, Volume], covered: np.ndarray, maps: MapSettings, model: Any
) -> dict[str, Volume]:
    """Return maps after what is done to them on the voxels of the scan: the median filter.

    Args:
        volumes: ``(1, I, J, K)`` by score, of ``volumes_of``.
        covered: ``(I, J, K)`` bool: where there are scores; other voxels have no part in a median.
        maps: What to do.
        model: That scored.
    """
    if maps.median_px <= 1:
        return dict(volumes)
    return {
        name: volume.with_data(masked_median(volume.data[0], covered, maps.median_px)[None], volume.name)
        if is_filtered(name, model)
        else volume
        for name, volume in volumes.items()
    }


def is_filtered(name: str, model: Any) -> bool:
    """Whether a score says something of each voxel by a model, so that a filter is for its maps."""
    kind = plugin("scorers", name)
    return getattr(kind, "group", "") != "raw" and (kind.level == "voxel" or len(sample_shape(model)) == 1)


def settings_told(name: str, maps: MapSettings, model: Any) -> dict[str, Any]:
    """Return the settings that had a part in a score's maps, as sidecars tell them."""
    options = getattr(plugin("scorers", name), "options", ())
    return maps.told(options, filtered=is_filtered(name, model))


def describe(name: str, baselines: Sequence[str]) -> Mapping[str, Any]:
    """Return what sidecars tell of a score; a contrast's own intensity is no plug-in."""
    if name not in baselines:
        return describe_score(name)
    return {
        "name": name,
        "equation": "",
        "paper": "",
        "unit": "signal",
        "direction": "higher is more novel",
        "trivial": True,
        "description": f"Intensity of {name.removeprefix(RAW)} as measured.",
    }


__all__ = [
    "RAW",
    "Stages",
    "back",
    "describe",
    "finished",
    "is_filtered",
    "judged",
    "raw_volume",
    "settings_told",
    "volumes_of",
]

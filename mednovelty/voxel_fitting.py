"""From an array of healthy voxels to a detector, for those who have no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mednovelty.detector import Detector, checked_settings
from mednovelty.fitting import FitSettings, fit_model, make_method
from mednovelty.gathering import gather_voxels
from mednovelty.origin import Start
from mednovelty.voxel_arrays import checked_labels, checked_voxels


def fit_voxels(  # noqa: PLR0913 - all but the voxels are by keyword
    x: np.ndarray,
    *,
    scans: Sequence[Any] | np.ndarray | None = None,
    labels: np.ndarray | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    init: Detector | str | Path | None = None,
    on_epoch: Callable[[Any], Any] | None = None,
) -> Detector:
    """Return a detector trained on healthy voxels, for those who have arrays and no files.

    Nothing is normalised but inside the network: bring the voxels of all scans to one scale first.

    Args:
        x: ``(n, C)`` finite real numbers of at most 1e15 in magnitude, C at least 1, of any one unit.
        scans: ``(n,)`` which scan each voxel is from, so that validation scans are held out whole.
        labels: ``(n,)`` whole numbers. For methods whose settings have ``classes``: from 0, the class of each
            healthy voxel, which gets a pole of its own. For ``deep_sad`` and ``hsc``: -1 for voxels known
            to be abnormal, 1 for those known to be healthy, 0 for all others, taken to be healthy; no score
            compares with abnormal ones. None: all are healthy, and of one class.
        seed: Same seed, same voxels, same machine: same bits.
        settings: Network, training, reference; None: the defaults.
        folder: Where checkpoints lie; None: none are written.
        resume: Go on from the checkpoint in that folder.
        init: A detector fitted on arrays, or its folder, whose weights training starts from.
        on_epoch: Told the ``TrainingRecord`` so far after each epoch, and once before the first.

    Raises:
        ScanError: Wrong shape, or values that are no numbers, not finite or too large.
        SettingsError: A setting is wrong, or the weights to start from do not fit; ``UnknownPluginError``: an
            unknown name.
        DetectorError: The checkpoint to resume from, or the detector to start from, is damaged.
        OutputError: The folder cannot be written.
        StoppedError: Ctrl-C or SIGTERM; the last checkpoint is kept.
    """
    settings = checked_settings(settings)
    x = checked_voxels(x)
    labels = checked_labels(labels, len(x), make_method(settings), settings.method)
    folder = None if folder is None else Path(folder)
    start = Start.of(init, settings, "voxels", shape=x.shape[1:])
    weights = None if start is None else start.weights
    with gather_voxels(x, scans, settings, seed, labels=labels, folder=folder) as gathered:
        fitted = fit_model(gathered.training, gathered.validation, settings, seed, folder=folder,
                           resume=resume, init=weights, on_epoch=on_epoch)  # fmt: skip
        return Detector._of("voxels", fitted, settings, seed, (gathered, start))


__all__ = ["fit_voxels"]

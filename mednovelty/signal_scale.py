"""Diffusion scans brought to one acquisition and one scale (Vasilev et al. 2018, Sec. 3.1).

Each scan is put into the channel order of the cohort's usual acquisition and divided by its mean intensity;
once all are there, each channel is divided by its mean over the voxels of the training scans.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.errors import MedNoveltyError, ScanError, SchemeError, SettingsError
from mednovelty.fitting import FitSettings, make_steps
from mednovelty.plugins import plugin
from mednovelty.preprocess.intensity import ChannelMean, channel_means
from mednovelty.preprocess.qspace import GradientScheme
from mednovelty.protocols import Preprocessor
from mednovelty.scan import Scan
from mednovelty.voxel_cache import Acquisition, VoxelCache

if TYPE_CHECKING:
    from dipy.core.gradients import GradientTable

    from mednovelty.io.read_scan import ReadOptions

SCALING = ("resample",)
"""Preprocessors after which a voxel's channels are still in the proportions in which they were measured."""


class SignalScale:
    """What is done to each scan, and what is known of its channels' means.

    Args:
        settings: Preprocessing.
        scheme: The usual acquisition; None: no scan has gradients.
    """

    def __init__(self, settings: FitSettings, scheme: GradientScheme | None) -> None:
        self.scheme = scheme
        mean_intensity = plugin("preprocessors", "mean_intensity")(within=settings.normalise_within)
        self.steps: list[tuple[str, Preprocessor]] = [
            *make_steps(settings),
            ("mean_intensity", mean_intensity),
        ]
        self._moments: dict[str, tuple[int, np.ndarray]] = {}

    def prepared(self, scan: Scan, left_out: np.ndarray | None = None) -> Scan:
        """Return a scan after all steps but the division by the normals' means.

        Args:
            scan: As read.
            left_out: ``(I, J, K)`` bool: voxels that have no part in it, as of a lesion; None: none.

        Raises:
            ScanError: It has no gradients (``gradients.missing``), or cannot be normalised.
            SchemeError: It was acquired otherwise.
        """
        if scan.gradients is None or self.scheme is None:
            raise ScanError(f"{scan.id}: has no gradients, which the recipes of diffusion scans need",
                            code="gradients.missing")  # fmt: skip
        prepared = self.scheme(scan if left_out is None else scan.without(left_out))
        for _, step in self.steps:
            prepared = step(prepared)
        return prepared

    def keep(self, id: str, healthy: Scan) -> None:
        """Remember the means of a scan's healthy voxels."""
        self._moments[id] = healthy.n_voxels, channel_means(healthy)

    def divide(
        self, table: VoxelCache, training: list[str]
    ) -> tuple[Acquisition | None, tuple[tuple[str, Preprocessor], ...]]:
        """Divide each channel of a table by its mean over some scans.

        Args:
            table: Of samples ``(C, *space)``, laid flat; what rows tell besides stays as it is.
            training: Ids of scans.

        Returns:
            How the channels were measured, None where the steps do not keep their proportions; and all steps
            that a scan goes through.
        """
        assert self.scheme is not None
        step = ChannelMean.of_moments([self._moments[id] for id in training])
        divisors = np.repeat(step.means, math.prod(table.shape[1:]))
        table.divide_channels(np.concatenate([divisors, np.ones(table.channels - len(divisors))]))
        acquisition = None
        if {name for name, _ in self.steps} <= {*SCALING, "mean_intensity"}:
            directions = tuple(tuple(row) for row in self.scheme.directions)
            acquisition = Acquisition(self.scheme.bvalues_s_per_mm2, step.means, directions)
        return acquisition, (("gradient_scheme", self.scheme), *self.steps, ("channel_mean", step))


def scheme_of(
    listed: list[Any], settings: FitSettings, options: ReadOptions | None, given: GradientScheme | None = None
) -> GradientScheme | None:
    """Return the acquisition that most scans share, from headers alone; None where none has gradients.

    Args:
        listed: Scans or their files.
        settings: Its tolerances.
        options: How scans are read.
        given: That of a detector to start from, in whose order channels come.

    Raises:
        SettingsError: The usual acquisition is not the one given (``init.acquisition``).
    """
    tables = []
    for files in listed:
        # What is wrong with a scan is said when it is read.
        with suppress(MedNoveltyError, OSError):
            tables.append(_gradients(files, options))
    found = [table for table in tables if table is not None]
    usual = GradientScheme.usual(found, **_tolerances(settings)) if found else None
    return usual if given is None else _same_scheme(given, usual, settings)


def _same_scheme(
    scheme: GradientScheme, usual: GradientScheme | None, settings: FitSettings
) -> GradientScheme:
    """Return the acquisition of a detector to start from, if it is that of most scans, whatever the order."""
    scheme = GradientScheme(scheme.bvalues_s_per_mm2, scheme.directions, **_tolerances(settings))
    if usual is None:  # Scans without gradients are refused one by one.
        return scheme
    try:
        scheme.order_of(usual.table(), "most scans here")
    except SchemeError as error:
        raise SettingsError(
            f"init: another acquisition than that of the detector to start from: {error}",
            code="init.acquisition",
        ) from error
    return scheme


def _tolerances(settings: FitSettings) -> dict[str, float]:
    return {
        "bvalue_tolerance": settings.bvalue_tolerance,
        "angle_tolerance_deg": settings.angle_tolerance_deg,
    }


def _gradients(files: Any, options: ReadOptions | None) -> GradientTable | None:
    from mednovelty.io.read_scan import DEFAULTS, gradients_of, scan_files

    if isinstance(files, Scan):
        return files.gradients
    return gradients_of(scan_files(files), options or DEFAULTS)


__all__ = ["SignalScale", "scheme_of"]

"""From a scan to novelty maps: the fitted parts, in the order in which a scan meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mednovelty.errors import DetectorError, ScanError, SettingsError
from mednovelty.fitting import FitSettings, Fitted, fit_model, make_method
from mednovelty.gathering import Gathered, SeenScan, gather_scans, gather_voxels
from mednovelty.maps import NoveltyMap
from mednovelty.plugins import plugin
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2, GradientScheme
from mednovelty.protocols import Preprocessor
from mednovelty.reference import Reference
from mednovelty.scan import Scan
from mednovelty.scoring import Scoring, describe_score, needs_signal

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import ScanFiles

RECIPES = ("qspace", "voxels")


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained novelty detector.

    Made by ``Detector.fit`` from scans, by ``fit_voxels`` from arrays, or read by ``Detector.load``.

    Attributes:
        recipe: ``qspace``: diffusion scans, one sample a voxel; ``voxels``: arrays only.
        fitted: Model, reference and training curve.
        settings: What it was fitted with.
        seed: Of training and of the draws of stochastic scores.
        preprocessing: Name and step, in order; empty for ``voxels``.
        scans: The scans it has seen.
        notes: What fitting had to say: scans that failed, how validation was split.
        sha256: Of its record on disk; empty before it is saved.
    """

    recipe: str
    fitted: Fitted
    settings: FitSettings
    seed: int
    preprocessing: tuple[tuple[str, Preprocessor], ...] = ()
    scans: tuple[SeenScan, ...] = ()
    notes: tuple[str, ...] = ()
    sha256: str = field(default="", compare=False)

    @classmethod
    def fit(  # noqa: PLR0913 - all but the scans are by keyword
        cls,
        scans: Iterable[ScanFiles | Scan | str | Path],
        *,
        recipe: str = "qspace",
        seed: int = 0,
        settings: FitSettings | None = None,
        options: ReadOptions | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        on_epoch: Callable[[Any], Any] | None = None,
        on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
    ) -> Detector:
        """Return a detector trained on healthy scans.

        Args:
            scans: What ``scan_folder`` lists, or scans in memory.
            recipe: ``qspace``.
            seed: Same seed, same scans, same machine: same bits.
            settings: Network, training, reference; None: the defaults.
            options: How scans are read.
            folder: Where checkpoints and large training tables lie; None: no checkpoints.
            resume: Go on from the checkpoint in that folder.
            on_epoch: Told each row of the training curve.
            on_scan: Told ``(scan id, message)`` for each scan; the message is empty where all went well.

        Raises:
            ScanError: No scan can be used.
            SettingsError: Unknown recipe, method or score.
        """
        if recipe != "qspace":
            raise SettingsError(f"scans are fitted with the recipe 'qspace', got {recipe!r}")
        settings = settings or FitSettings()
        folder = None if folder is None else Path(folder)
        with gather_scans(
            scans, settings, seed, options=options, folder=folder, on_scan=on_scan
        ) as gathered:
            fitted = fit_model(gathered.training, gathered.validation, settings, seed, folder=folder,
                               resume=resume, on_epoch=on_epoch)  # fmt: skip
            return cls._of(recipe, fitted, settings, seed, gathered)

    @classmethod
    def _of(
        cls, recipe: str, fitted: Fitted, settings: FitSettings, seed: int, gathered: Gathered
    ) -> Detector:
        settings = replace(
            settings, method_settings=fitted.method.settings, neighbours=fitted.reference.neighbours
        )
        return cls(recipe, fitted, settings, seed, gathered.preprocessing, gathered.scans, gathered.notes)

    @property
    def model(self) -> Any:
        """The network, frozen."""
        return self.fitted.model

    @property
    def reference(self) -> Reference:
        """The normals as the network sees them."""
        return self.fitted.reference

    @cached_property
    def scheme(self) -> GradientScheme | None:
        """The acquisition it knows."""
        return next((step for _, step in self.preprocessing if isinstance(step, GradientScheme)), None)

    def scoring(self) -> Scoring:
        """Return what scorers are made from."""
        is_b0 = None
        if self.scheme is not None:
            is_b0 = torch.tensor(self.scheme.bvalues_s_per_mm2) <= B0_THRESHOLD_S_PER_MM2
        return Scoring(
            self.model, self.reference, self.settings.draws, self.seed, self.settings.batch_voxels, is_b0
        )

    def score_voxels(self, y: np.ndarray, scores: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return ``{score: (m,) float32}`` for ``(m, C)`` voxels, normalised as those it was fitted on.

        Raises:
            ScanError: Wrong number of channels, or values that are not finite.
        """
        y = np.asarray(y)
        channels = self.model.channels
        if y.ndim != 2 or y.shape[1] != channels:
            raise ScanError(f"voxels must be (m, {channels}), got {y.shape}", code="voxels.channels")
        if not np.isfinite(y).all():
            raise ScanError(f"{int((~np.isfinite(y)).any(1).sum())} of {len(y)} voxels are not finite",
                            code="voxels.not_finite")  # fmt: skip
        names = list(scores or self.settings.scores)
        return self.scoring().run(names, lambda start, stop: (y[start:stop], None), len(y))

    def prepare(self, scan: Scan) -> tuple[Scan, Scan]:
        """Return the scan after all preprocessing, and as measured but with channels in order.

        Raises:
            SchemeError: Acquired otherwise than the training scans.
            ScanError: Cannot be normalised.
        """
        measured = prepared = scan
        for name, step in self.preprocessing:
            prepared = step(prepared)
            if name == "gradient_scheme":
                measured = prepared
        return prepared, measured

    def score(
        self,
        scan: Scan,
        scores: Sequence[str] | None = None,
        advance: Callable[[int], Any] = lambda n: None,
    ) -> dict[str, NoveltyMap]:
        """Return the novelty maps of a scan, on the scan's own voxels.

        Args:
            scan: From ``read_scan``.
            scores: Which scores; None: those it was fitted for.
            advance: Told after each batch how many voxels were scored.

        Raises:
            SchemeError: Acquired otherwise than the training scans.
        """
        if not self.preprocessing:
            raise DetectorError("this detector was fitted on arrays and knows no scans; use score_voxels")
        names = list(scores or self.settings.scores)
        prepared, measured = self.prepare(scan)
        with_signal = needs_signal(names)

        def cut(start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None]:
            return self.view.cut(prepared, start, stop), measured.voxels(start, stop) if with_signal else None

        values = self.scoring().run(names, cut, self.view.count(prepared), advance)
        maps = {}
        for name in names:
            volume = self.view.assemble(scan, values.pop(name), f"{name} of {scan.id}")
            maps[name] = NoveltyMap(name, volume, scan.mask, dict(describe_score(name)))
        return maps

    @cached_property
    def view(self) -> Any:
        """How scans are cut into samples."""
        return plugin("views", "voxel")()

    def save(self, folder: str | Path) -> Detector:
        """Write the detector into a folder; return it with its hash.

        Raises:
            OutputError: The folder cannot be written.
        """
        from mednovelty.model_folder import save

        return replace(self, sha256=save(self, Path(folder)))

    @classmethod
    def load(cls, folder: str | Path) -> Detector:
        """Return the detector of a folder; it scores bit for bit as the one that was saved.

        Raises:
            DetectorError: Nothing there, damaged, or made by plug-ins that are not installed.
        """
        from mednovelty.model_folder import load

        return cls(**load(Path(folder)))

    def __repr__(self) -> str:
        scheme = self.scheme.describe() if self.scheme else f"{self.model.channels} channels"
        return f"Detector({self.recipe!r}, {self.settings.method}, {scheme}, {len(self.reference)} normals)"


def fit_voxels(  # noqa: PLR0913 - all but the voxels are by keyword
    x: np.ndarray,
    *,
    scans: Sequence[Any] | np.ndarray | None = None,
    seed: int = 0,
    settings: FitSettings | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[Any], Any] | None = None,
) -> Detector:
    """Return a detector trained on healthy voxels, for those who have arrays and no files.

    Nothing is normalised but inside the network: bring the voxels of all scans to one scale first.

    Args:
        x: ``(n, C)`` finite numbers.
        scans: ``(n,)`` which scan each voxel is from, so that validation scans are held out whole.
        seed: Same seed, same voxels, same machine: same bits.
        settings: Network, training, reference; None: the defaults.
        folder: Where checkpoints lie; None: none are written.
        resume: Go on from the checkpoint in that folder.
        on_epoch: Told each row of the training curve.

    Raises:
        ScanError: Wrong shape, or values that are not finite.
    """
    settings = settings or FitSettings()
    folder = None if folder is None else Path(folder)
    with gather_voxels(x, scans, settings, seed, folder=folder) as gathered:
        fitted = fit_model(
            gathered.training,
            gathered.validation,
            settings,
            seed,
            folder=folder,
            resume=resume,
            on_epoch=on_epoch,
        )
        return Detector._of("voxels", fitted, settings, seed, gathered)


__all__ = ["Detector", "FitSettings", "fit_voxels", "make_method"]

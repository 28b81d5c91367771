"""From a scan to novelty maps: the fitted parts, in the order in which a scan meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mednovelty.annotations import Annotations, Labels, with_what_is_known
from mednovelty.calibration import Constants
from mednovelty.capabilities import asked_by, offered_by
from mednovelty.detector_settings import checked_settings, reading, refuse_size
from mednovelty.devices import chosen
from mednovelty.errors import DetectorError, SettingsError
from mednovelty.fitting import FitSettings, Fitted, fit_model, make_method, make_view
from mednovelty.gathering import Gathered, SeenScan, gather_scans
from mednovelty.image_gathering import check_contrasts, contrasts_of, gather_images
from mednovelty.map_settings import MapSettings
from mednovelty.mapping import RAW, Stages, describe, finished, judged, raw_volume, settings_told, volumes_of
from mednovelty.maps import NoveltyMap
from mednovelty.origin import Origin, Start
from mednovelty.plugins import names as plugin_names
from mednovelty.plugins import plugin
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2, GradientScheme
from mednovelty.protocols import Preprocessor
from mednovelty.recipes import recipe_of
from mednovelty.reference import Reference
from mednovelty.scan import Scan
from mednovelty.scoring import Scoring, Shares, resolve_names
from mednovelty.searches import moved
from mednovelty.settings import checked, overlaid, tree_of
from mednovelty.voxel_arrays import checked_voxels

if TYPE_CHECKING:
    from mednovelty.io.read_scan import ReadOptions
    from mednovelty.io.scan_folder import Kind, ScanFiles

SCORING_SETTINGS = ("maps", "draws", "batch_voxels", "knn", "nln")
FITTED_NEIGHBOURS = ("tune", "reverse")
"""Of ``nln``, what is decided when fitting all the same: the constants depend on it."""
DIFFUSION_BASELINES = ("raw_b0", "raw_dwi", "raw_attenuation")


@dataclass(frozen=True, eq=False)
class Detector:
    """A trained novelty detector.

    Made by ``Detector.fit`` from scans, by ``fit_voxels`` from arrays, or read by ``Detector.load``.

    Attributes:
        recipe: ``qspace``: diffusion scans, one sample a voxel; ``qspace-volumes``: windows of them;
            ``slices`` and ``patches``: structural scans; ``voxels``: arrays only.
        fitted: Model, reference and training curve.
        settings: What it was fitted with.
        seed: Of training and of the draws of stochastic scores.
        preprocessing: Name and step, in order; empty for ``voxels``.
        scans: The scans it has seen.
        origin: The detector whose weights its training started from; None: it started from nothing learnt.
        notes: What fitting had to say: scans that failed, how validation was split.
        sha256: Of its record on disk; empty before it is saved.
        folder: Where it lies on disk; None before it is saved.
    """

    recipe: str
    fitted: Fitted
    settings: FitSettings
    seed: int
    preprocessing: tuple[tuple[str, Preprocessor], ...] = ()
    scans: tuple[SeenScan, ...] = ()
    notes: tuple[str, ...] = ()
    contrasts: tuple[str, ...] = ()
    """Names of a structural scan's channels, in order."""
    origin: Origin | None = None
    sha256: str = field(default="", compare=False)
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def fit(  # noqa: PLR0913 - all but the scans are by keyword
        cls,
        scans: str | Path | Iterable[ScanFiles | Scan | str | Path],
        *,
        recipe: str = "qspace",
        contrasts: Sequence[str] | None = None,
        lesions: Callable[[Scan], np.ndarray | None] | None = None,
        labels: Labels | None = None,
        outliers: Sequence[Any] = (),
        seed: int = 0,
        settings: FitSettings | None = None,
        options: ReadOptions | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        init: Detector | str | Path | None = None,
        on_epoch: Callable[[Any], Any] | None = None,
        on_scan: Callable[[str, str], Any] = lambda scan_id, message: None,
        on_reference: Callable[[int, int], Any] = lambda chosen, count: None,
        device: str | torch.device = "cpu",
    ) -> Detector:
        """Return a detector trained on healthy scans.

        Args:
            scans: A folder, image or data manifest, as ``scan_folder`` takes it; what ``scan_folder`` lists;
                or any iterable of such files, of images with their gradients beside them, and of scans in
                memory. Where a manifest gives roles, only ``normal`` and ``validation`` scans are taken.
            recipe: ``qspace``, ``qspace-volumes``, ``slices``, ``patches`` or ``contrasts``.
            contrasts: Which images of a structural scan are its channels; None: the only one there is.
            lesions: Gives each scan's lesion as ``(I, J, K)`` bool, or None; what touches it is left out, or,
                for ``deep_sad``, ``hsc`` and ``fcdd``, labelled as abnormal (see ``annotations``).
            labels: What scans are said to be, by id.
            outliers: Scans, their files, or paths of pictures that such methods are to tell from normal ones.
            seed: Same seed, same scans, same machine: same bits.
            settings: Network, training, reference; None: the recipe's defaults.
            options: How scans are read; None: the defaults, with the ``structural_mask`` of the settings.
            folder: Where checkpoints and large training tables lie; None: no checkpoints.
            resume: Go on from the checkpoint in that folder.
            init: A detector, or its folder, whose weights training starts from: of the same method, network,
                recipe and contrasts or acquisition.
            on_epoch: Told the ``TrainingRecord`` so far after each epoch, and once before the first.
            on_scan: Told ``(scan id, message)`` for each scan; the message is empty where all went well.
            on_reference: Told how many voxels of a coreset are chosen, and of how many.
            device: Where to train and score, as torch names it, or ``auto``; see ``devices.chosen``.

        Raises:
            ScanError: No scan can be used.
            SettingsError: Unknown recipe, or a setting is wrong; ``UnknownPluginError``: an unknown name; or
                the weights to start from are those of another network.
            DetectorError: The checkpoint to resume from, or the detector to start from, is damaged.
            OutputError: The folder cannot be written.
            StoppedError: Ctrl-C or SIGTERM; the last checkpoint is kept.
        """
        kind = recipe_of(recipe).scans
        settings = checked_settings(settings, recipe)
        if options is None:
            options = reading(settings)
        # Scans to be scored are to be masked as those it was fitted on.
        settings = replace(settings, structural_mask=options.structural_mask)
        folder = None if folder is None else Path(folder)
        of = recipe_of(recipe)
        known = Annotations.of(settings, seed, lesion_of=lesions, labels=labels, outliers=outliers)
        settings = with_what_is_known(settings, known, images=of.images, gradients=of.diffusion)
        gather: Any = gather_scans
        if of.images or not of.diffusion:
            gather = partial(gather_images, diffusion=of.diffusion)
            # How many gradients there are is known later.
            refuse_size(settings, len(contrasts or ()) or 1)
        listed = list(_listed(scans, kind, contrasts))
        start = Start.of(init, settings, recipe, contrasts=contrasts_of(listed))
        if of.diffusion:
            gather = partial(gather, scheme=None if start is None else start.detector.scheme)
        with gather(
            listed, settings, seed, options=options, folder=folder, on_scan=on_scan, known=known
        ) as gathered:
            settings.maps.signs_of(gathered.contrasts)  # Known wrong before hours of training.
            if start is not None:
                start.check_gathered(gathered.contrasts)
            weights = None if start is None else start.weights
            fitted = fit_model(gathered.training, gathered.validation, settings, seed, folder=folder,
                               resume=resume, init=weights, on_epoch=on_epoch, on_reference=on_reference,
                               device=chosen(device))  # fmt: skip
            return cls._of(recipe, fitted, settings, seed, (gathered, start))

    @classmethod
    def _of(
        cls,
        recipe: str,
        fitted: Fitted,
        settings: FitSettings,
        seed: int,
        scans: tuple[Gathered, Start | None],
    ) -> Detector:
        gathered, start = scans
        settings = replace(settings, method_settings=fitted.method.settings, nln=fitted.nln)
        origin, more = (None, ()) if start is None else (start.origin, start.told(gathered.scans))
        return cls(recipe, fitted, settings, seed, gathered.preprocessing, gathered.scans,
                   (*gathered.notes, *more), gathered.contrasts, origin)  # fmt: skip

    @property
    def seen(self) -> tuple[SeenScan, ...]:
        """Every scan that its weights have seen: its own, and those of the detectors that it started from."""
        return self.scans if self.origin is None else (*self.scans, *self.origin.scans)

    @property
    def model(self) -> Any:
        """The network, frozen."""
        return self.fitted.model

    @property
    def reading(self) -> ReadOptions:
        """How scans are read to be scored, unless told otherwise: masked as those it was fitted on."""
        return reading(self.settings)

    @property
    def reference(self) -> Reference:
        """The normals as the network sees them."""
        return self.fitted.reference

    @property
    def constants(self) -> Mapping[str, Constants]:
        """What the terms of scores are normalised with, by score, for as many neighbours as are looked at."""
        return self.fitted.constants_by_k.get(self.settings.nln.k, {})

    @cached_property
    def scheme(self) -> GradientScheme | None:
        """The acquisition it knows."""
        return next((step for _, step in self.preprocessing if isinstance(step, GradientScheme)), None)

    def scoring(self, scan: Scan | None = None) -> Scoring:
        """Return what scorers are made from.

        Args:
            scan: What is scored, preprocessed: the spacing of its samples is known from it. None: it is not.
        """
        is_b0 = spacing_mm = None
        if self.scheme is not None:
            is_b0 = torch.tensor(self.scheme.bvalues_s_per_mm2) <= B0_THRESHOLD_S_PER_MM2
        if scan is not None and hasattr(self.view, "spacing_mm"):
            spacing_mm = self.view.spacing_mm(scan)
        settings, maps = self.settings, self.settings.maps
        return Scoring(
            self.model, self.reference, settings.draws, self.seed, settings.batch_voxels, is_b0,
            smoothing=maps.smoothing, spacing_mm=spacing_mm, copies=maps.noisy_copies,
            precision=maps.precision, signs=maps.signs_of(self.contrasts), nln=settings.nln,
            knn=settings.knn, constants=self.constants,
        )  # fmt: skip

    def score_voxels(self, y: np.ndarray, scores: str | Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Return ``{score: (m,) float32}``, higher is more novel.

        Args:
            y: ``(m, C)`` real numbers, normalised as those it was fitted on.
            scores: Which scores, names or groups such as ``all``; a text is one name; None: those it was
                fitted for.

        Raises:
            ScanError: Wrong number of channels, or values that are no numbers, not finite or too large.
            SettingsError: A score needs what is not there; ``UnknownPluginError``: there is no such score.
        """
        y = checked_voxels(y, self.model.channels)
        names = self.names_of(scores)
        return self.scoring().run(names, lambda start, stop: (y[start:stop], None), len(y))

    def prepare(self, scan: Scan) -> tuple[Scan, Scan]:
        """Return the scan after all preprocessing, and as measured but with channels in order.

        Both have the scan's own voxels; the first is what the network sees, without a unit, the second is in
        the scan's.

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
        scores: str | Sequence[str] | None = None,
        advance: Callable[[int], Any] = lambda n: None,
    ) -> dict[str, NoveltyMap]:
        """Return the novelty maps of a scan, on the scan's own voxels.

        Args:
            scan: From ``read_scan``.
            scores: Which scores, names or groups such as ``all``; a text is one name; None: those it was
                fitted for.
            advance: Told after each batch how many voxels were scored.

        Raises:
            SchemeError: Acquired otherwise than the training scans.
            ScanError: Cannot be normalised.
            SettingsError: A score needs what is not there; ``UnknownPluginError``: there is no such score.
            DetectorError: It was fitted on arrays and knows no scans.
        """
        if not self.preprocessing:
            raise DetectorError("this detector was fitted on arrays and knows no scans; use score_voxels")
        if self.contrasts:
            check_contrasts(scan, self.contrasts)
        names = self.names_of(scores)
        prepared, measured = self.prepare(scan)
        raw = [name for name in names if name in self.contrast_baselines]
        of_scan = [name for name in names if name in self.scan_scores]
        modelled = [name for name in names if name not in raw and name not in of_scan]
        stages, shares = Stages(scan, measured, prepared), Shares()
        volumes = {name: raw_volume(scan, name) for name in raw}
        fallbacks: list[str] = []
        scoring = replace(self.scoring(prepared), name=scan.id, told=fallbacks.append)
        found = volumes_of(scoring, self.view, stages, modelled, advance, shares.add)
        volumes |= finished(found, self.covered(scan), self.settings.maps, self.model)
        about = {name: self._about(name) | shares.of(name) for name in names}
        images: dict[str, dict[str, Any]] = {}
        for name in of_scan:
            volumes[name], images[name], about[name]["scan"] = judged(
                scoring, self.view, stages, name, advance if not modelled else lambda n: None
            )
        return {
            name: NoveltyMap(name, volumes[name], scan.mask, about[name],
                             tuple(fallbacks if name in found else ()), images.get(name, {}))
            for name in names
        }  # fmt: skip

    def _about(self, name: str) -> dict[str, Any]:
        about = dict(describe(name, self.contrast_baselines))
        if name not in self.contrast_baselines and name not in self.scan_scores:
            about["settings"] = settings_told(name, self.settings.maps, self.model)
            if "knn" in getattr(plugin("scorers", name), "options", ()):
                about["settings"]["knn"] = self.settings.knn
            if name in self.constants:
                constants = {term: asdict(scale) for term, scale in self.constants[name].items()}
                about["settings"] |= {"nln": asdict(self.settings.nln), "constants": constants}
        return about

    @property
    def contrast_baselines(self) -> tuple[str, ...]:
        """The trivial baselines of a structural scan: each contrast's intensity, ``raw_FLAIR``."""
        return tuple(RAW + contrast for contrast in self.contrasts)

    @cached_property
    def scan_scores(self) -> tuple[str, ...]:
        """Scores of whole scans that its model can give; they are always written."""
        offers = offered_by(self.fitted.method)
        kinds = {name: plugin("scan_scorers", name) for name in plugin_names("scan_scorers")}
        return tuple(name for name, kind in kinds.items() if set(asked_by(kind)) <= set(offers))

    @property
    def baselines(self) -> tuple[str, ...]:
        """The trivial baselines of the scans it scores."""
        if self.contrasts:
            return (*self.contrast_baselines, *(("raw_signed",) if self.settings.maps.signs else ()))
        return DIFFUSION_BASELINES if self.scheme is not None else ()

    @cached_property
    def view(self) -> Any:
        """How scans are cut into samples: the ``View`` that the settings name."""
        return make_view(self.settings)

    def slice_axis(self, scan: Scan) -> str | None:
        """Return along which axis of a scan's stored voxels it sees slices, I, J or K; None: it sees none."""
        return self.view.slice_axis(scan) if hasattr(self.view, "slice_axis") else None

    def covered(self, scan: Scan) -> np.ndarray:
        """Return ``(I, J, K)`` bool: the voxels of a scan's mask that its samples cover.

        A view that does not say is taken to cover all, and so is one on a grid that a step resamples to.
        """
        if not hasattr(self.view, "covered") or "resample" in dict(self.preprocessing):
            return scan.mask
        return np.asarray(self.view.covered(scan))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample: ``(C,)``, or ``(C, *space)`` where C is the number of contrasts or gradients."""
        if self.scheme is not None:
            return tuple(self.view.shape(len(self.scheme.bvalues_s_per_mm2)))
        return tuple(self.view.shape(len(self.contrasts))) if self.contrasts else (self.model.channels,)

    def names_of(self, scores: str | Sequence[str] | None = None) -> list[str]:
        """Return the names of scores, groups spelled out, each once; None: those it was fitted for."""
        asked = (scores,) if isinstance(scores, str) else scores
        asked = list(asked or self.settings.scores)
        own = [name for name in asked if name in (*self.contrast_baselines, *self.scan_scores)]
        rest = [name for name in asked if name not in own]
        offers = offered_by(self.fitted.method)
        return [*own, *(resolve_names(rest, images=len(self.shape) > 1, offers=offers) if rest else [])]

    def to(self, device: str | torch.device) -> Detector:
        """Move network and reference to a device, as torch names it, or ``auto``; return the detector there.

        Raises:
            SettingsError: This machine has no such device.
        """
        device = chosen(device)
        self.model.to(device)
        if device.type == "cpu":
            return self
        return replace(self, fitted=replace(self.fitted, reference=moved(self.reference, device)))

    def with_draws(self, draws: int) -> Detector:
        """Return the detector with another number of draws for stochastic scores.

        Raises:
            SettingsError: Not from 1 to 10,000.
        """
        return replace(self, settings=replace(self.settings, draws=draws))

    def with_maps(self, maps: MapSettings) -> Detector:
        """Return the detector with other settings of maps; nothing needs to be trained again."""
        return replace(self, settings=replace(self.settings, maps=maps))

    def with_scoring(self, tree: Mapping[str, Any], *, where: str = "settings") -> Detector:
        """Return the detector with other settings of scoring; nothing needs to be trained again.

        Args:
            tree: ``maps`` and its settings, ``draws``, ``batch_voxels``, ``knn``; of ``nln``, ``alpha``, and
                ``k`` where constants were measured for it.
            where: What messages call the place that they are from.

        Raises:
            SettingsError: Any other setting, which training depends on, or a wrong value.
        """
        own = {name: tree_of(self.settings)[name] for name in SCORING_SETTINGS}
        fixed = [name for name in tree if name in tree_of(self.settings) and name not in own]
        nln = tree.get("nln")
        if isinstance(nln, Mapping):
            fixed += [f"nln.{name}" for name in nln if name in FITTED_NEIGHBOURS]
        if fixed:
            raise SettingsError(
                f"{where}: {fixed[0]} is decided when fitting; "
                f"scoring can change {', '.join(SCORING_SETTINGS)}"
            )
        changed = checked(FitSettings, overlaid(own, tree, where), where)
        changed.maps.signs_of(self.contrasts)
        self._check_k(changed.nln.k, where)
        return replace(
            self, settings=replace(self.settings, **{name: getattr(changed, name) for name in own})
        )

    def _check_k(self, k: int, where: str) -> None:
        """Raise where nothing is known of that many neighbours."""
        known = sorted(self.fitted.constants_by_k)
        if k != self.settings.nln.k and k not in known:
            raise SettingsError(
                f"{where}: nln.k={k}: this detector has constants for K = "
                f"{', '.join(map(str, known)) or 'none'}; take one of these, or fit with nln.k={k}"
            )

    def save(self, folder: str | Path) -> Detector:
        """Write the detector into a folder; return it with its hash.

        Raises:
            OutputError: The folder cannot be written.
        """
        from mednovelty.model_folder import save

        return replace(self, sha256=save(self, Path(folder)), folder=Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Detector:
        """Return the detector of a folder; it scores bit for bit as the one that was saved.

        Raises:
            DetectorError: Nothing there, damaged, or made by plug-ins that are not installed.
        """
        from mednovelty.model_folder import load

        return cls(**load(Path(folder)), folder=Path(folder))

    def __repr__(self) -> str:
        scheme = self.scheme.describe() if self.scheme else f"{self.model.channels} channels"
        return f"Detector({self.recipe!r}, {self.settings.method}, {scheme}, {len(self.reference)} normals)"

    def _repr_html_(self) -> str:
        from mednovelty.notebook import detector_html

        return detector_html(self)


def _listed(scans: Any, kind: Kind, contrasts: Sequence[str] | None) -> Any:
    """Return what can be gone through one by one; scans that a manifest keeps for tests are left out."""
    from mednovelty.io.scan_folder import ScanFiles, ScanList, scan_folder

    if isinstance(scans, str | Path):
        scans = scan_folder(scans, kind=kind, contrasts=None if kind == "dwi" else contrasts)
    if isinstance(scans, ScanList):
        return scans.with_roles("normal", "validation")
    return [scans] if isinstance(scans, Scan | ScanFiles) else scans


__all__ = ["Detector", "FitSettings", "make_method"]

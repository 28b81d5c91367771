"""What is known of scans besides their voxels, and which method is told which of it.

====================  ======================================  =============================================
what                  methods that take it                     what becomes of it
====================  ======================================  =============================================
``normal``            ``deep_sad``, ``hsc``, ``fcdd``          +1: all samples of the scan
``anomalous``         the same                                 -1: the samples in the scan's lesion; of a
                                                               slice or window scan, all, where no masks
                                                               were given
``unlabelled``        the same                                 0: taken to be normal, less surely so
a class               ``hyperspherical``                       0, 1, ...: in the order of the names
lesion masks          all                                      -1 for the first three, unless labels are
                                                               given and do not call the scan anomalous;
                                                               else left out
outliers              ``deep_sad``, ``hsc``, ``fcdd``          -1: a part of each batch
====================  ======================================  =============================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty.annotation_settings import AnnotationSettings
from mednovelty.errors import ScanError, SettingsError
from mednovelty.fitting import FitSettings, make_method, make_view
from mednovelty.scan import Scan
from mednovelty.seeds import numpy_generator

if TYPE_CHECKING:
    from mednovelty.io.label_table import Entry

LesionOf = Callable[[Scan], np.ndarray | None]
"""``(I, J, K)`` bool of a scan's lesion; None where it has none, or none is known."""
WORDS = {"normal": 1, "anomalous": -1, "unlabelled": 0}
SEMI = "deep_sad, hsc, fcdd and synthetic_lesions"


@dataclass(frozen=True)
class Labels:
    """What scans are said to be.

    Attributes:
        of: Scan id to -1, 0 or 1; or to a class from 0.
        classes: Their names; none where labels are -1, 0 and 1.
    """

    of: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """What is known of the scans of a training, for one method.

    Attributes:
        lesion_of: Gives each scan's lesion; None: nothing is known of any.
        labels: What scans are said to be; None: nothing is said of any.
        outliers: Files of scans, scans or pictures; see ``outlier_sources``.
        settings: Of what becomes of these.
        semi: Whether the method learns from labelled anomalies.
        maps: Whether it is told where in a sample they are.
        space: Of a sample, where it has axes.
        spaced: Whether it is told how far apart a sample's voxels are; its rows then always end with a label.
        seed: Decides which voxels are labelled.
    """

    lesion_of: LesionOf | None = None
    labels: Labels | None = None
    outliers: tuple[Any, ...] = ()
    settings: AnnotationSettings = field(default_factory=AnnotationSettings)
    semi: bool = False
    maps: bool = False
    space: tuple[int, ...] = ()
    spaced: bool = False
    seed: int = 0

    @classmethod
    def of(
        cls,
        settings: FitSettings,
        seed: int,
        *,
        lesion_of: LesionOf | None = None,
        labels: Labels | None = None,
        outliers: Sequence[Any] = (),
    ) -> Annotations:
        """Return what a method is told under some settings; arguments as those of ``Detector.fit``."""
        method = make_method(settings)
        semi = bool(getattr(method, "semi_labels", ()))
        known = cls(lesion_of, labels, tuple(outliers), settings.annotations, semi, seed=seed)
        space = tuple(make_view(settings).shape(1))[1:]
        maps = known.shows_any and bool(space) and bool(getattr(method, "truth_maps", False))
        spaced = bool(space) and bool(getattr(method, "spaced", False))
        return replace(known, maps=maps, space=space, spaced=spaced)

    @property
    def labelled(self) -> bool:
        """Whether samples come with a label."""
        told = self.labels is not None or (self.semi and (self.shows_any or bool(self.outliers)))
        return told or self.spaced

    @property
    def shows_any(self) -> bool:
        """Whether lesions are shown as abnormal, of those scans that ``shows`` tells."""
        return self.semi and self.lesion_of is not None and self.settings.lesions == "label"

    def label_of(self, scan: str) -> int:
        """Return what all of a scan is said to be; 0 where nothing is."""
        return 0 if self.labels is None else self.labels.of.get(scan, 0)

    def shows(self, scan: str) -> bool:
        """Return whether a scan's lesion is shown as abnormal; else it is left out."""
        return self.shows_any and (self.labels is None or self.label_of(scan) == -1)

    def lesion(self, scan: Scan) -> np.ndarray | None:
        """Return a scan's lesion, ``(I, J, K)`` bool; None where none is known.

        Raises:
            ScanError: It is said to be normal and has one, or anomalous and has none
                (``labels.contradictory``); or anomalous, and has no mask though others do (``labels.where``).
        """
        lesion = None if self.lesion_of is None else self.lesion_of(scan)
        if lesion is None and self.lesion_of is not None and self.semi and self.label_of(scan.id) == -1:
            raise ScanError(
                f"{scan.id}: is labelled as anomalous, and no mask says where, though masks were given; give "
                "it one, or call it unlabelled (a label of a subject is that of each of its sessions)",
                code="labels.where",
            )
        if (
            lesion is not None
            and self.shows(scan.id)
            and self.labels is not None
            and not (lesion & scan.mask).any()
        ):
            raise ScanError(f"{scan.id}: is labelled as anomalous, and its mask has no lesion in the brain; "
                            "correct one of them", code="labels.contradictory")  # fmt: skip
        if lesion is not None and self.semi and self.label_of(scan.id) == 1 and (lesion & scan.mask).any():
            raise ScanError(
                f"{scan.id}: is labelled as normal, and its mask has a lesion of {int(lesion.sum())} voxels; "
                "correct one of them",
                code="labels.contradictory",
            )
        return lesion

    def is_anomalous(self, scan: Scan, lesion: np.ndarray | None) -> bool:
        """Return whether any of a scan, whose lesion is given, is shown as abnormal."""
        shown = lesion is not None and self.shows(scan.id) and bool((lesion & scan.mask).any())
        return shown or (self.semi and self.label_of(scan.id) == -1)

    def rows(
        self,
        samples: np.ndarray,
        labels: np.ndarray,
        truth: np.ndarray | None = None,
        spacing_mm: Sequence[float] = (),
    ) -> np.ndarray:
        """Return rows of a training table, as wide as a method is told of its samples.

        A row is a sample, the distances of its voxels, where its anomaly is, and its label: each but the
        first only where the method is told.

        Args:
            samples: ``(n, D)``.
            labels: ``(n,)``.
            truth: ``(n, V)``, 1 where an anomaly is; None: nowhere, and everywhere in a sample labelled -1.
            spacing_mm: Along each axis of space; none: 1, as of pictures.
        """
        parts = [samples]
        if self.spaced:
            spacing = tuple(spacing_mm) or (1.0,) * len(self.space)
            parts.append(np.tile(np.asarray(spacing, np.float32), (len(samples), 1)))
        if self.maps:
            axes = math.prod(self.space)
            whole = np.repeat((labels < 0).astype(np.float32)[:, None], axes, 1)
            parts.append(whole if truth is None else truth.reshape(len(samples), axes))
        return np.column_stack([*parts, labels]) if self.labelled else samples

    def drawn(self, scan: str, lesion: np.ndarray) -> np.ndarray:
        """Return which voxels are labelled as abnormal, ``(n,)`` bool, of those in a lesion, ``(n,)``."""
        most, places = self.settings.labelled_voxels, np.flatnonzero(lesion)
        if most is None or len(places) <= most:
            return lesion
        chosen = np.zeros_like(lesion)
        chosen[numpy_generator(self.seed, "labelled voxels", scan).choice(places, most, replace=False)] = True
        return chosen

    def told(self, scan: str) -> str:
        """Return in words what all of a scan is labelled as; empty where it is not."""
        label = self.label_of(scan)
        if self.labels is None or (not self.labels.classes and not label):
            return ""
        return (
            self.labels.classes[label]
            if self.labels.classes
            else next(word for word, value in WORDS.items() if value == label)
        )


def labels_in(entries: Mapping[str, Entry], ids: Sequence[str], settings: FitSettings, table: str) -> Labels:
    """Return labels of scans for the method of some settings.

    Args:
        entries: What a table says of scans, by id.
        ids: Of all scans of the training.
        settings: Of the training.
        table: What messages call the table.

    Raises:
        SettingsError: The method takes no labels (``labels.method``), or has another number of classes
            (``labels.classes``).
        ScanError: A word is no label (``labels.value``), or a scan has no class (``labels.missing``).
    """
    method = make_method(settings)
    if hasattr(method.settings, "classes"):
        return _classes(entries, ids, method.settings.classes, table)
    if not getattr(method, "semi_labels", ()):
        raise SettingsError(
            f"{table}: the method {settings.method} takes no labels: it learns from normal samples alone; "
            f"{SEMI} learn from scans labelled as normal, anomalous or unlabelled, "
            "hyperspherical from classes",
            code="labels.method",
        )
    found = {}
    for id in ids:
        entry = entries.get(id)
        if entry is None or not entry.label:
            continue
        if entry.label.lower() not in WORDS:
            raise ScanError(
                f"{table}, line {entry.line}: {id} is {entry.label!r}; the method {settings.method} takes "
                f"{', '.join(WORDS)}",
                code="labels.value",
            )
        found[id] = WORDS[entry.label.lower()]
    return Labels(found)


def _classes(entries: Mapping[str, Entry], ids: Sequence[str], wanted: int, table: str) -> Labels:
    bare = [id for id in ids if id not in entries or not entries[id].label]
    if bare:
        more = f" and {len(bare) - 1} more have" if len(bare) > 1 else " has"
        raise ScanError(
            f"{table}: {bare[0]}{more} no class; the method hyperspherical brings each class to its own "
            "pole and needs one of every scan",
            code="labels.missing",
        )
    names = tuple(sorted({entries[id].label for id in ids}))
    if len(names) < 2 or (wanted and wanted != len(names)):
        raise SettingsError(
            f"{table}: {len(names)} classes ({', '.join(names)}); "
            + (f"method_settings.classes is {wanted}" if wanted else "at least 2 are needed, or no labels"),
            code="labels.classes",
        )
    return Labels({id: names.index(entries[id].label) for id in ids}, names)


def with_what_is_known(
    settings: FitSettings, known: Annotations, *, images: bool, gradients: bool
) -> FitSettings:
    """Return settings of a method that fit what is known: its number of classes, its synthetic anomalies.

    Args:
        settings: Of the training.
        known: What it will be told.
        images: Whether samples have voxels within.
        gradients: Whether scans are of diffusion.

    Raises:
        SettingsError: Labels or outliers for a method that takes none (``labels.method``,
            ``outliers.method``), or synthetic anomalies that samples of that kind cannot have.
    """
    method = make_method(settings)
    own, classes = method.settings, () if known.labels is None else known.labels.classes
    if known.labels is not None and not (hasattr(own, "classes") if classes else known.semi):
        takes = "hyperspherical" if classes else SEMI
        raise SettingsError(f"labels were given, which {takes} take; the method {settings.method} takes no "
                            "such labels", code="labels.method")  # fmt: skip
    if known.outliers and not known.semi:
        raise SettingsError(
            f"outliers were given, and the method {settings.method} learns from normal samples alone; choose "
            f"one of {SEMI}",
            code="outliers.method",
        )
    if getattr(own, "classes", 0) and known.labels is None:
        raise SettingsError(
            f"method_settings.classes={own.classes}, and no scan's class was given; pass labels",
            code="labels.missing",
        )
    if classes and not own.classes:
        own = replace(own, classes=len(classes))
    if getattr(own, "anomalies", None) == "auto":
        shown = known.outliers or known.labels is not None or known.shows_any
        own = replace(own, anomalies="none" if shown else "confetti" if images else "diffusion")
    if hasattr(method, "for_samples"):
        own = method.for_samples(images=images, gradients=gradients)
    own = _with_background(own, settings)
    _check_synthetic(own, images=images, gradients=gradients)
    return settings if own is method.settings else replace(settings, method_settings=own)


def _with_background(own: Any, settings: FitSettings) -> Any:
    """Return a method's settings with the background of the samples that it will see.

    Raises:
        SettingsError: They say another, outside of which lesions are planted (``background.differs``).
    """
    shown = getattr(getattr(make_view(settings), "settings", None), "background", None)
    if shown is None or not hasattr(own, "background") or own.background == shown:
        return own
    if own.background is not None:
        raise SettingsError(
            f"method_settings.background={own.background:g} and view_settings.background={shown:g}: samples "
            "show the view's outside of the scan, where no lesion is to be planted; leave the method's out",
            code="background.differs",
        )
    return replace(own, background=float(shown))


def _check_synthetic(own: Any, *, images: bool, gradients: bool) -> None:
    kind = getattr(own, "anomalies", "none")
    if kind == "diffusion" and images:
        raise SettingsError(
            "method_settings.anomalies=diffusion is of q-space voxels; slices and windows have confetti, "
            "lesions",
            code="anomalies.kind",
        )
    if kind == "diffusion" and not gradients:
        raise SettingsError(
            "method_settings.anomalies=diffusion needs gradients, which these scans have not; show some "
            "anomalies with masks, labels or outliers",
            code="anomalies.kind",
        )
    if kind in ("confetti", "lesions") and not images and hasattr(own, "network_for"):
        raise SettingsError(f"method_settings.anomalies={kind} is of slices and windows; q-space voxels have "
                            "diffusion", code="anomalies.kind")  # fmt: skip


__all__ = ["Annotations", "Labels", "LesionOf", "labels_in", "with_what_is_known"]

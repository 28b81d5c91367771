"""What is made of lesion masks, labels and outliers when fitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mednovelty.errors import SettingsError


@dataclass(frozen=True)
class AnnotationSettings:
    """How much of what is known of scans a method is shown.

    Attributes:
        lesions: What lesion masks are for, where the method learns from labelled anomalies: ``label``, what
            lies in a lesion is shown as abnormal; ``leave_out``, it is left out, as it is for other methods.
        labelled_voxels: So many voxels of each annotated diffusion scan's lesion are labelled, drawn by the
            seed; the others of the lesion are left out. None: all are labelled.
        abnormal_share: A slice or window is labelled as abnormal where a lesion fills at least this share of
            its pixels; one that a smaller part touches is left out. A loss that is told where lesions are
            (``fcdd`` with ``loss=pixel``) takes all that have a pixel of one.
        labelled_share: Of each batch, how much are labelled anomalies, repeated as often as that takes; 0: as
            many as there are, which of a hundred voxels among a hundred thousand is next to none. Where there
            are outliers, they fill that part of the batch.
        outlier_share: Of each batch, how much are outliers, where there are any; 0.5: as many as normals.
    """

    lesions: Literal["label", "leave_out"] = "label"
    labelled_voxels: int | None = None
    abnormal_share: float = 0.001
    labelled_share: float = 0.0
    outlier_share: float = 0.5

    def __post_init__(self) -> None:
        if self.lesions not in ("label", "leave_out"):
            raise SettingsError(f"annotations.lesions={self.lesions!r} is neither 'label' nor 'leave_out'")
        if self.labelled_voxels is not None and self.labelled_voxels < 1:
            raise SettingsError(
                f"annotations.labelled_voxels must be at least 1, got {self.labelled_voxels}; to label none, "
                "set annotations.lesions=leave_out"
            )
        if not 0 <= self.labelled_share < 1:
            raise SettingsError(
                f"annotations.labelled_share must be at least 0 and below 1, got {self.labelled_share}"
            )
        for name in ("abnormal_share", "outlier_share"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(
                    f"annotations.{name} must lie between 0 and 1, both left out, got {getattr(self, name)}"
                )


__all__ = ["AnnotationSettings"]

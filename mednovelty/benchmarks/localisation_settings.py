"""What the TOML files of the protocols on brain scans set, and the settings of a fit that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mednovelty.benchmarks.ranges import MOST, check_numbers
from mednovelty.errors import SettingsError
from mednovelty.fitting import FitSettings
from mednovelty.model_folder import fit_settings

PLUGINS = {"vae": "image_vae", "vae_c03": "image_vae"}
"""What the plug-ins are called that a protocol calls otherwise."""


@dataclass(frozen=True)
class LocalisationSettings:
    """What the TOML file sets.

    Args:
        contrasts: Which images of a scan are its channels; as the manifest calls them.
        signs: By contrast in which direction a lesion changes it, for the ``_signed`` scores; none: 1 for
            each.
        recipe: ``slices`` or ``patches``.
        size: Pixels along each side of a slice or window.
        mask: What a scan's mask is made of where there is none: ``head``, right for what is skull-stripped;
            ``brain``.
        preprocessors: What is done to scans; none: as the recipe has it.
        median_px: Side of the median over finished maps, in voxels; 0: none.
        epochs: At most; 0: as many as the method's own defaults.
        learning_rate: 0: the method's own.
        batch: Slices or windows a step; 0: the method's own.
        patience: Epochs without improvement until training ends; 0: the method's own.
        patients: At most as many of each role, the first by name; 0: all.
        method_settings: Of the method, replacing its own.
    """

    contrasts: tuple[str, ...]
    signs: dict[str, float]
    recipe: Literal["slices", "patches"]
    size: int
    mask: Literal["head", "brain"]
    preprocessors: tuple[str, ...]
    median_px: int
    epochs: int
    learning_rate: float
    batch: int
    patience: int
    patients: int
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # 0 is the method's own.
        check_numbers(self, epochs=MOST, learning_rate=MOST, batch=MOST)
        if not self.contrasts:
            raise SettingsError("contrasts: names none; a detector needs one, as contrasts=FLAIR")

    def fit(self, method: str, scores: Sequence[str], name: str) -> FitSettings:
        """Return the settings of a fit.

        Args:
            method: Of the protocol.
            scores: That its detector is to have.
            name: Of the protocol, for messages.
        """
        training = {
            "max_epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch,
            "patience": self.patience,
        }
        tree = {
            "method": PLUGINS.get(method, method),
            "scores": list(scores),
            "structural_mask": self.mask,
            "annotations": {"lesions": "leave_out"},
            "maps": {"median_px": self.median_px, "signs": self.signs},
            "train": {key: value for key, value in training.items() if value},
            "view_settings": {"size": [self.size] * (3 if self.recipe == "patches" else 2)},
        }
        tree |= {"preprocessors": list(self.preprocessors)} if self.preprocessors else {}
        tree |= {"method_settings": self.method_settings} if self.method_settings else {}
        return fit_settings(tree, where=name, recipe=self.recipe)


__all__ = ["PLUGINS", "LocalisationSettings"]

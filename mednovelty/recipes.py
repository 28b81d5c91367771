"""What kind of scans a detector is for, and the settings that such scans ask for.

================== ========== ===================== =======================================
recipe             scans      sample                source
================== ========== ===================== =======================================
``qspace``         diffusion  a voxel's signals     Vasilev et al. 2018
``qspace-volumes`` diffusion  a 3-D window of       normalised as ``qspace``
                              signals
``slices``         structural a 2-D slice           Zimmerer et al. 2019
``patches``        structural a 3-D window          the same networks, a dimension more
``contrasts``      structural a voxel's contrasts   the networks of ``qspace``
================== ========== ===================== =======================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mednovelty.errors import SettingsError
from mednovelty.methods.image_vae_settings import PAPER_TRAINING

if TYPE_CHECKING:
    from mednovelty.io.scan_folder import Kind

IMAGE_SCORES = (
    "rec_error",
    "kl_gradient",
    "rec_gradient",
    "elbo_gradient",
    "combi",
    "vae_regularizer",
    "rec_term",
    "negative_elbo",
)


@dataclass(frozen=True)
class Recipe:
    """A kind of scans and what they ask for.

    Attributes:
        name: As ``--recipe`` takes it.
        scans: ``dwi``: one 4-D image with gradients; ``structural``: one image a contrast.
        defaults: Settings, as a tree, where they are not ``FitSettings``' own.
        images: Whether a sample has voxels within.
        preferred: By method, settings as a tree where those that the method asks for do not fit such samples.
    """

    name: str
    scans: Kind
    defaults: Mapping[str, Any] = field(default_factory=dict)
    images: bool = False
    preferred: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def diffusion(self) -> bool:
        """Whether scans are of diffusion."""
        return self.scans == "dwi"


def _images(view: str, batch: int, training: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": "image_vae",
        "preprocessors": ["zscore", "clip"],
        "view": view,
        "scores": list(IMAGE_SCORES),
        "train": asdict(PAPER_TRAINING) | training,
        "batch_voxels": batch,
    }


# A window has many times the voxels of a slice: narrower networks, fewer windows a step.
_WINDOWS = {
    "synthetic_lesions": {
        "method_settings": {"width": 8},
        "train": {"batch_size": 4, "learning_rate": 3e-3, "validation_voxels": 32, "plateau_patience": 8},
    }
}
RECIPES = {
    "qspace": Recipe("qspace", "dwi"),
    "qspace-volumes": Recipe(
        "qspace-volumes",
        "dwi",
        _images("patch", 4, {"batch_size": 16}) | {"method": "synthetic_lesions", "preprocessors": []},
        images=True,
        preferred=_WINDOWS,
    ),
    "slices": Recipe("slices", "structural", _images("slice", 64, {}), images=True),
    "patches": Recipe(
        "patches",
        "structural",
        _images("patch", 4, {"batch_size": 16}),
        images=True,
        preferred=_WINDOWS,
    ),
    "contrasts": Recipe("contrasts", "structural", {"preprocessors": ["zscore", "clip"], "view": "voxel"}),
}


def recipe_of(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        SettingsError: There is none of that name.
    """
    if name not in RECIPES:
        raise SettingsError(f"no recipe is called {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


__all__ = ["IMAGE_SCORES", "RECIPES", "Recipe", "recipe_of"]

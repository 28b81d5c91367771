"""mednovelty: what in this scan would surprise a model that has only seen healthy ones?

    import mednovelty as mn

    detector = mn.Detector.fit(mn.scan_folder("controls"), recipe="qspace", seed=0)
    detector.save("model")
    maps = mn.Detector.load("model").score(mn.read_scan("sub-p01_dwi.nii.gz"))
    maps["latent_euclidean"].save("map.nii.gz")

Importing it imports neither torch nor anything else that is slow; names are fetched when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mednovelty.cohort import score_cohort
    from mednovelty.detector import Detector
    from mednovelty.evaluation import evaluate
    from mednovelty.fitting import FitSettings
    from mednovelty.io.read_scan import read_scan
    from mednovelty.io.scan_folder import scan_folder
    from mednovelty.maps import NoveltyMap
    from mednovelty.scan import Scan, Volume
    from mednovelty.voxel_fitting import fit_voxels

_HOMES = {
    "Detector": "detector",
    "FitSettings": "fitting",
    "NoveltyMap": "maps",
    "Scan": "scan",
    "Volume": "scan",
    "evaluate": "evaluation",
    "fit_voxels": "voxel_fitting",
    "read_scan": "io.read_scan",
    "scan_folder": "io.scan_folder",
    "score_cohort": "cohort",
}

__all__ = [
    "Detector",
    "FitSettings",
    "NoveltyMap",
    "Scan",
    "Volume",
    "evaluate",
    "fit_voxels",
    "read_scan",
    "scan_folder",
    "score_cohort",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mednovelty' has no attribute {name!r}")
    return getattr(import_module(f"mednovelty.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

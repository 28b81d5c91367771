"""The papers this library follows, and which line of code is which equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from mednovelty.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paper:
    """One source: a key to cite it by and an address to read it at."""

    key: str
    authors: str
    year: int
    title: str
    url: str


PAPERS = {
    paper.key: paper
    for paper in (
        Paper(
            key="vasilev2018",
            authors="Vasilev et al.",
            year=2018,
            title="q-Space Novelty Detection with Variational Autoencoders",
            url="https://arxiv.org/abs/1806.02997",
        ),
        Paper(
            key="zimmerer2019",
            authors="Zimmerer et al.",
            year=2019,
            title="Unsupervised Anomaly Localization using Variational Auto-Encoders",
            url="https://arxiv.org/abs/1907.02796",
        ),
        Paper(
            key="mesarcik2021_nln",
            authors="Mesarcik et al.",
            year=2021,
            title="Improving Novelty Detection using the Reconstructions of Nearest Neighbours",
            url="https://arxiv.org/abs/2111.06150",
        ),
        Paper(
            key="hyperspherical2026",
            authors="Ascarate et al.",
            year=2026,
            title="VAE with Hyperspherical Coordinates: Improving Anomaly Detection from "
            "Hypervolume-Compressed Latent Space",
            url="https://arxiv.org/abs/2601.18823",
        ),
        Paper(
            key="ruff2021_thesis",
            authors="Ruff",
            year=2021,
            title="Deep One-Class Learning: A Deep Learning Approach to Anomaly Detection",
            url="https://proceedings.mlr.press/v80/ruff18a.html",
        ),
        Paper(
            key="tipping1999",
            authors="Tipping and Bishop",
            year=1999,
            title="Probabilistic Principal Component Analysis",
            url="https://doi.org/10.1111/1467-9868.00196",
        ),
        Paper(
            key="tan2022",
            authors="Tan et al.",
            year=2022,
            title="Detecting Outliers with Foreign Patch Interpolation",
            url="https://arxiv.org/abs/2011.04197",
        ),
        Paper(
            key="makhzani2015",
            authors="Makhzani et al.",
            year=2015,
            title="Adversarial Autoencoders",
            url="https://arxiv.org/abs/1511.05644",
        ),
        Paper(
            key="akcay2018",
            authors="Akcay et al.",
            year=2018,
            title="GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training",
            url="https://arxiv.org/abs/1805.06725",
        ),
        Paper(
            key="breunig2000",
            authors="Breunig et al.",
            year=2000,
            title="LOF: Identifying Density-Based Local Outliers",
            url="https://doi.org/10.1145/342009.335388",
        ),
        Paper(
            key="liu2008",
            authors="Liu et al.",
            year=2008,
            title="Isolation Forest",
            url="https://doi.org/10.1109/ICDM.2008.17",
        ),
        Paper(
            key="rousseeuw1999",
            authors="Rousseeuw and Van Driessen",
            year=1999,
            title="A Fast Algorithm for the Minimum Covariance Determinant Estimator",
            url="https://doi.org/10.1080/00401706.1999.10485670",
        ),
        Paper(
            key="hoffmann2007",
            authors="Hoffmann",
            year=2007,
            title="Kernel PCA for Novelty Detection",
            url="https://doi.org/10.1016/j.patcog.2006.07.009",
        ),
        Paper(
            key="schoelkopf2001",
            authors="Schoelkopf et al.",
            year=2001,
            title="Estimating the Support of a High-Dimensional Distribution",
            url="https://doi.org/10.1162/089976601750264965",
        ),
        Paper(
            key="garyfallidis2014",
            authors="Garyfallidis et al.",
            year=2014,
            title="Dipy, a library for the analysis of diffusion MRI data",
            url="https://doi.org/10.3389/fninf.2014.00008",
        ),
    )
}
METHODS: dict[str, tuple[str, ...]] = {
    "vae": ("vasilev2018",),
    "image_vae": ("zimmerer2019",),
    "ae": ("mesarcik2021_nln",),
    "aae": ("mesarcik2021_nln", "makhzani2015"),
    "ae_res": ("mesarcik2021_nln",),
    "ae_con": ("mesarcik2021_nln", "akcay2018"),
    "hyperspherical": ("hyperspherical2026",),
    "pca": ("ruff2021_thesis",),
    "kernel_pca": ("hoffmann2007", "ruff2021_thesis"),
    "kde": ("ruff2021_thesis",),
    "ocsvm": ("schoelkopf2001", "ruff2021_thesis"),
    "isolation_forest": ("liu2008", "ruff2021_thesis"),
    "gaussian": ("ruff2021_thesis",),
    "gaussian_mixture": ("ruff2021_thesis",),
    "minimum_volume_ellipsoid": ("rousseeuw1999", "ruff2021_thesis"),
    "local_outlier_factor": ("breunig2000",),
    "deep_svdd": ("ruff2021_thesis",),
    "deep_sad": ("ruff2021_thesis",),
    "hsc": ("ruff2021_thesis",),
    "fcdd": ("ruff2021_thesis",),
    "synthetic_lesions": ("tan2022", "ruff2021_thesis"),
    "cvdd": ("ruff2021_thesis",),
}
"""The sources of each method, the nearest first; what is none of theirs, each file's head says."""

_HOMES: dict[tuple[str, str], str] = {}


def equation(paper: str, label: str) -> Callable[[T], T]:
    """Mark a function or class as the home of one equation.

    Args:
        paper: A key of ``PAPERS``.
        label: The equation as the paper numbers it, ``"Eq. (4)"``, or its name there where it has
            no number.

    Raises:
        KeyError: The paper is not in ``PAPERS``.
        ValueError: The equation lives elsewhere already.
    """
    if paper not in PAPERS:
        raise KeyError(f"no paper {paper!r} in mednovelty.papers.PAPERS; add it there first")

    def mark(home: T) -> T:
        address = f"{home.__module__}:{home.__qualname__}"  # type: ignore[attr-defined]
        if _HOMES.setdefault((paper, label), address) != address:
            raise ValueError(f"{paper} {label} already lives at {_HOMES[paper, label]}, so not at {address}")
        return home

    return mark


def homes() -> dict[tuple[str, str], str]:
    """Return ``(paper, label) -> module:name`` of every equation in the modules imported so far."""
    return dict(sorted(_HOMES.items()))


def where(paper: str, label: str) -> str:
    """Return ``module:name`` of the code that implements an equation.

    Only modules that are imported are known; ``mednovelty.plugins.import_all`` imports them.

    Raises:
        SettingsError: Unknown paper, or no code carries that label.
    """
    if paper not in PAPERS:
        near = get_close_matches(paper, PAPERS, n=1)
        raise SettingsError(f"no paper is called {paper!r}; " + _hint(near, sorted(PAPERS)))
    if (paper, label) not in _HOMES:
        known = [found for key, found in homes() if key == paper]
        near = get_close_matches(label, known, n=1)
        raise SettingsError(f"no code carries {paper} {label!r}; " + _hint(near, known))
    return _HOMES[paper, label]


def _hint(near: list[str], known: list[str]) -> str:
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"

"""The shallow methods of Table 2.1 of Ruff 2021, section 2.2.4.

All see the principal components that keep 95 % of the training images' variance, as in the thesis, of images
with normalised contrast; ``--set scaled=true``: brought to between 0 and 1 then, as for networks. The thesis
does not tell. Of scaled images, gamma and bandwidth are the last that it has on offer.

    oc_svm                 gamma of 2^-10, ..., 2^-1 by the AUROC on a tenth of the test images, the better
                           nu of 0.01 and 0.1 by that on all of them: labels choose, as in the thesis
    oc_svm_unlabelled      gamma 1 over the summed variance, nu 0.1: no label is looked at
    kde                    the bandwidth of 2^0.5, 2^1, ..., 2^5 with the highest likelihood, in 5 folds
    isolation_forest       100 trees of 256 images
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mednovelty.benchmarks.one_class_images import table_of
from mednovelty.methods.shallow.preparing import PrincipalAxes
from mednovelty.metrics import Ranking, auroc
from mednovelty.plugins import plugin
from mednovelty.seeds import generator, numpy_generator

VARIANCE = 0.95
GAMMAS = tuple(2.0**power for power in range(-10, 0))
NUS = (0.01, 0.1)
PEEKED = 10
"""One in so many test images chooses gamma for the oracle."""


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components, float32.

    Attributes:
        training: ``(n, W)``.
        test: ``(m, W)``.
        novel: ``(m,)`` bool.
        seed: Of the forest, of folds, and of which images the oracle sees.
    """

    training: Tensor
    test: Tensor
    novel: np.ndarray
    seed: int

    @classmethod
    def of(cls, training: Tensor, test: Tensor, novel: np.ndarray, seed: int) -> Components:
        """Return those of ``(n, D)`` training and ``(m, D)`` test images; axes are the training images'."""
        axes = PrincipalAxes(training.shape[1], min(training.shape))
        axes.fit(training.numpy(), VARIANCE, seed)
        width = int(axes.used)
        return cls(axes.project(training)[:, :width], axes.project(test)[:, :width], novel, seed)


@torch.no_grad()
def fitted_scores(name: str, seen: Components, **settings: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return ``(m,)`` scores of the test images, and what was fitted.

    Args:
        name: A shallow method's.
        seen: By the method, all of it and nothing else.
        settings: Of the method.
    """
    kind = plugin("methods", name)
    method = kind(kind.Settings(samples=len(seen.training), standardise=False, **settings))
    model = method.build(seen.training.shape[1:])
    method.start(model, table_of(seen.training, tuple(seen.training.shape[1:])), generator(seen.seed, name))
    return model.eval().novelty(seen.test).numpy(), model.facts() | {"components": seen.training.shape[1]}


def one_class_svm(seen: Components) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by the one-class SVM whose gamma and nu fit the test's labels best, as the thesis does."""
    m = len(seen.novel)
    some = np.sort(numpy_generator(seen.seed, "peeked").permutation(m)[: max(m // PEEKED, 1)])
    found = []
    for nu in NUS:
        runs = [fitted_scores("ocsvm", seen, gamma=gamma, nu=nu) for gamma in GAMMAS]
        scores, told = max(runs, key=lambda run: auroc(Ranking.of(run[0][some], seen.novel[some])))
        found.append((scores, told | {"nu": nu}))
    return max(found, key=lambda run: auroc(Ranking.of(run[0], seen.novel)))


def one_class_svm_unlabelled(seen: Components) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by a one-class SVM whose settings are fixed in advance."""
    scores, told = fitted_scores("ocsvm", seen)
    return scores, told | {"nu": 0.1}


def density(seen: Components) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by a kernel density estimate with one of the thesis' bandwidths."""
    return fitted_scores("kde", seen)


def forest(seen: Components) -> tuple[np.ndarray, dict[str, Any]]:
    """Detect by an isolation forest."""
    return fitted_scores("isolation_forest", seen)


SHALLOW = {
    "oc_svm": one_class_svm,
    "oc_svm_unlabelled": one_class_svm_unlabelled,
    "kde": density,
    "isolation_forest": forest,
}

__all__ = ["GAMMAS", "SHALLOW", "Components", "fitted_scores"]

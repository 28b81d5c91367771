"""Isolation forest (Liu et al. 2008): what random cuts separate from everything else in few steps.

    s(x) = 2^(-E[h(x)] / c(n))

h(x) is how deep x falls in a tree, and on top ``c`` of the samples left in its leaf; c(n) is the mean depth
of n samples. Trees compare float32, as scikit-learn's do.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mednovelty.errors import SettingsError
from mednovelty.methods.shallow.base import ShallowMethod, ShallowModel
from mednovelty.methods.shallow.preparing import put, register_count
from mednovelty.methods.shallow.settings import ForestSettings
from mednovelty.types import SampleScores


class Forest(ShallowModel):
    """Trees laid side by side; nodes that a tree does not have are never reached.

    Attributes:
        feature: ``(T, nodes)`` which value a node compares.
        threshold: ``(T, nodes)`` with what; up to it, the way is left.
        left: ``(T, nodes)`` node to go on to; of a leaf, itself.
        right: ``(T, nodes)`` likewise.
        depth: ``(T, nodes)`` h of a leaf.
        usual: c(n) of the samples that each tree was grown on.
        levels: Steps from the root to the deepest leaf.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    depth: Tensor
    usual: Tensor
    levels: Tensor

    def reserve(self, width: int) -> None:
        """Register the trees."""
        trees, nodes = self.settings.trees, 2 * self.settings.tree_samples
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(trees, nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(trees, nodes))
        self.register_buffer("depth", torch.zeros(trees, nodes))
        self.register_buffer("usual", torch.ones(()))
        register_count(self, "levels", nodes)
        self.register_load_state_dict_post_hook(_check_nodes)

    def estimator(self, rows: np.ndarray, seed: int) -> Any:
        """Return the fitted forest."""
        from sklearn.ensemble import IsolationForest

        count = min(self.settings.tree_samples, len(rows))
        return IsolationForest(n_estimators=self.settings.trees, max_samples=count, random_state=seed).fit(
            rows
        )

    def take(self, fitted: Any, rows: np.ndarray) -> None:
        """Take all trees."""
        trees = [tree.tree_ for tree in fitted.estimators_]
        shape = tuple(self.feature.shape)
        found = {name: np.zeros(shape) for name in ("feature", "threshold", "left", "right", "depth")}
        for i, tree in enumerate(trees):
            nodes = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            depth = tree.compute_node_depths()
            found["feature"][i, nodes] = np.where(leaf, 0, tree.feature)
            found["threshold"][i, nodes] = _rounded_down(np.where(leaf, 0, tree.threshold))
            found["left"][i, nodes] = np.where(leaf, nodes, tree.children_left)
            found["right"][i, nodes] = np.where(leaf, nodes, tree.children_right)
            # scikit-learn counts the root as one step, and takes it off again.
            found["depth"][i, nodes] = depth - 1 + usual_depth(tree.n_node_samples)
        for name, values in found.items():
            put(getattr(self, name), values)
        self.usual.fill_(usual_depth(np.array([fitted.max_samples_]))[0])
        self.levels.fill_(max(tree.max_depth for tree in trees))

    def numbers_a_sample(self) -> int:
        """Return how many nodes a sample is at."""
        return max(self.settings.trees, self.channels)

    def of(self, z: Tensor) -> SampleScores:
        """Return ``(B,)`` scores between 0 and 1; about a half where samples are usual."""
        compared, nodes = z.float(), self.feature.shape[1]
        # Trees laid end to end, and both ways on from a node side by side: one look-up each.
        first = torch.arange(len(self.feature), device=z.device) * nodes
        feature, threshold = self.feature.flatten(), self.threshold.flatten()
        ways = (torch.stack([self.left, self.right], dim=2) + first[:, None, None]).flatten()
        node = first.expand(len(z), -1)
        for _ in range(int(self.levels)):
            goes_right = compared.gather(1, feature[node]) > threshold[node]
            node = ways[2 * node + goes_right]
        return torch.exp2(-self.depth.flatten()[node].mean(1) / self.usual)

    def facts(self) -> dict[str, Any]:
        """Return how many trees there are, and how deep they are."""
        return {"trees": self.settings.trees, "levels": int(self.levels)}

    def words(self) -> str:
        """Return the same in words."""
        return f"{self.settings.trees} isolation trees of {self.settings.tree_samples} samples at most"


class ForestMethod(ShallowMethod):
    """Isolation forest; novel is what few random cuts separate from everything else."""

    Settings: ClassVar[type] = ForestSettings
    Model: ClassVar[type[ShallowModel]] = Forest
    name: ClassVar[str] = "isolation_forest"


def usual_depth(samples: np.ndarray) -> np.ndarray:
    """Return c(n): ``2 (H(n - 1)) - 2 (n - 1) / n``, 1 for n = 2 and 0 for a single sample."""
    n = np.maximum(np.asarray(samples, np.float64), 2)
    mean = 2 * (np.log(np.maximum(n - 1, 1)) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, mean))


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 up to each threshold: float32 values compare alike with both."""
    nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest)


def _check_nodes(module: nn.Module, _: Any) -> None:
    """Refuse trees, read from a file, that point outside of themselves or of a sample."""
    values, nodes = module.channels, module.feature.shape[1]  # type: ignore[index]
    for name, most in (("feature", values), ("left", nodes), ("right", nodes)):
        found = getattr(module, name)
        if found.min() < 0 or found.max() >= most:
            raise SettingsError(f"{name} of a tree points to {int(found.max())}, where there are {most}")


__all__ = ["Forest", "ForestMethod", "usual_depth"]

"""Context vectors over the voxels of whole scans: a VAE gives each its latents, a scan is the bag of them.

Ruff 2021, section 3.2, on bags that the thesis does not have. The VAE is trained as ever, voxel by voxel
(Vasilev et al. 2018), and then contexts are learnt from ``bag`` voxels of each scan, held-out scans among
them. A scan is judged by all its voxels. How novel normals are is measured by contexts that were learnt
without them; the VAE has seen them all the same, which makes them look a little more normal than they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from mednovelty.errors import SettingsError
from mednovelty.methods.cvdd_kept import KeptContexts
from mednovelty.methods.cvdd_settings import CVDDSettings
from mednovelty.methods.cvdd_training import cross_fitted
from mednovelty.methods.vae import VAE, VAEMethod
from mednovelty.seeds import numpy_generator
from mednovelty.types import Samples

ENCODE_ROWS = 1 << 15


class ContextVAE(VAE):
    """A VAE of voxels, and context vectors over the latents of scans.

    Args:
        channels: C.
        settings: Of both.
    """

    def __init__(self, channels: int, settings: CVDDSettings) -> None:
        super().__init__(channels, settings.latents)
        self.contexts = KeptContexts(settings.latents.latent, settings.contexts, settings.scans)

    @torch.no_grad()
    def members(self, samples: Iterable[Samples]) -> Iterator[Tensor]:
        """Yield the posterior means, ``(n, Z)`` on the processor, of ``(n, C)`` voxels at a time."""
        for x in samples:
            yield self.encode(x.to(self.shift.device)).mean.cpu()


class CVDDMethod:
    """VAE of voxels, with context vectors over each scan's latents: how novel a scan is as a whole.

    Args:
        settings: ``None``: the paper's VAE with 16 latents, and 3 contexts.
    """

    Settings: ClassVar[type] = CVDDSettings
    offers: ClassVar[tuple[str, ...]] = ("prior", "contexts")

    def __init__(self, settings: CVDDSettings | None = None) -> None:
        self.settings = settings or CVDDSettings()
        self._vae = VAEMethod(self.settings.latents)

    @staticmethod
    def defaults(*, images: bool) -> dict[str, Any]:
        """Return settings of fitting: two quick scores of voxels beside that of the scan."""
        return {"scores": ["vae_regularizer", "reconstruction_error"]}

    def build(self, shape: tuple[int, ...]) -> ContextVAE:
        """Return the model for voxels.

        Raises:
            SettingsError: Samples are no voxels.
        """
        if len(shape) != 1:
            raise SettingsError(
                "the method cvdd sees a scan as a bag of voxels, and takes diffusion scans or arrays of "
                "voxels; for slices and windows choose another, such as image_vae"
            )
        return ContextVAE(shape[0], self.settings)

    def start(self, model: ContextVAE, normals: Any, generator: Generator) -> None:
        """Set the VAE's weights; as ``VAEMethod.start``."""
        self._vae.start(model, normals, generator)

    def loss(self, model: ContextVAE, x: Samples, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return the VAE's loss; as ``VAEMethod.loss``."""
        return self._vae.loss(model, x, epoch, generator)

    def validate(
        self, model: ContextVAE, batches: Iterable[Samples], generator: Generator
    ) -> dict[str, float]:
        """Return the VAE's means over held-out voxels; as ``VAEMethod.validate``."""
        return self._vae.validate(model, batches, generator)

    def finish(self, model: ContextVAE, training: Any, validation: Any, seed: int) -> None:
        """Learn contexts from the latents of each scan, once the VAE is trained.

        Args:
            model: Trained.
            training: The ``VoxelCache`` it was trained on.
            validation: That of held-out scans.
            seed: Of the voxels drawn, and of everything else random.
        """
        scans = _rows_by_scan(training, validation)
        chosen = np.unique(np.linspace(0, len(scans) - 1, min(len(scans), self.settings.scans)).astype(int))
        rows = [scans[i] for i in chosen]
        bags = [self._bag(model, blocks, seed, i) for i, blocks in enumerate(rows)]
        fitted = cross_fitted(
            bags, self.settings.contexts, seed, lambda i: model.members(_samples(rows[i], model.channels))
        )
        model.contexts.keep(fitted)

    def _bag(self, model: ContextVAE, blocks: list[np.ndarray], seed: int, number: int) -> Tensor:
        rows = np.concatenate([np.asarray(block) for block in blocks]) if len(blocks) > 1 else blocks[0]
        random = numpy_generator(seed, "cvdd bag", number)
        drawn = np.sort(random.choice(len(rows), min(len(rows), self.settings.bag), replace=False))
        return torch.cat(list(model.members([torch.from_numpy(np.array(rows[drawn][:, : model.channels]))])))

    def assess(
        self, model: ContextVAE, training: Any, validation: Any, generator: Generator
    ) -> dict[str, Any]:
        """Return what ``VAEMethod.assess`` does, and how normals lie in contexts that never saw them."""
        found = self._vae.assess(model, training, validation, generator)
        if not int(model.contexts.counts[0]):
            return found
        fitted = model.contexts.fitted()
        scores, bag = fitted.normals.mean(1), self.settings.bag
        told = {
            "context_voxels_a_scan": bag,
            "normals_overall": [round(score, 8) for score in scores.tolist()],
            "smallest_p_value": 1 / (len(scores) + 1),
        }
        words = (
            f"; {len(fitted.whole.contexts)} contexts learnt from at most {bag:,} voxels a scan: "
            f"{len(scores)} normal scans, each judged by contexts that never saw it, "
            + (
                f"score {scores.min():.4g} to {scores.max():.4g}, and no p-value of a scan can be below "
                f"{1 / (len(scores) + 1):.2g}"
                if len(scores)
                else "too few to compare a scan with: all p-values are 1"
            )
        )
        return found | told | {"verdict": found["verdict"] + words}


def _rows_by_scan(*tables: Any) -> list[list[np.ndarray]]:
    """Return the rows of each scan, ``(n, C)`` arrays; a scan can have some in each table."""
    found: dict[str, list[np.ndarray]] = {}
    for table in tables:
        for scan, rows in table.scans.items():
            found.setdefault(scan, []).append(table.array()[rows])
    return list(found.values())


def _samples(blocks: list[np.ndarray], channels: int) -> Iterator[Tensor]:
    for block in blocks:
        for start in range(0, len(block), ENCODE_ROWS):
            yield torch.from_numpy(np.array(block[start : start + ENCODE_ROWS, :channels]))


__all__ = ["CVDDMethod", "ContextVAE"]

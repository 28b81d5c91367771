"""One class of ten left out: how well a VAE's terms tell that class from the others.

Zimmerer et al. 2019, sections 2.3 and 3.1, first row of Fig. 1: a fully connected VAE, 784-400-20-400-784, is
trained on the 54,000 training images of nine classes and scores the 10,000 test images, 9,000 of those nine
classes and 1,000 of the tenth. Sample-wise AUROC and AP of the reconstruction term, the KL term and the ELBO;
higher is more novel. Beside them two scores that know no network: the squared distance to the mean training
image, and darkness, the mean intensity with its sign changed.

``vae`` has the paper's defaults; the other methods are the figure's axes: latents, log c, and scaling, by
which the released code repeats the flattened image that many times.

Which of the two sources a default follows: 25 epochs, batches of 128 and Adam at 1e-3 are the released
code's; the paper has Adam at 1e-4, lowered on plateaus, and stops early (``--set learning_rate=1e-4``). c =
1, 20 latents and 400 units are both's. Where the paper stops early it keeps a share of the 54,000 images for
that, of a size that it does not say; here all are trained on, for a fixed number of epochs, and the curve
is measured on 2,000 of the training images, whose best epoch is kept.

Scores take the mean of q(z|x). ``released_code`` does what that code does: z is drawn with exp(h / 2)
where h = log sigma, in training and in testing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from mednovelty.benchmarks.benchmark import Findings, Measured, Task
from mednovelty.benchmarks.idx import flat
from mednovelty.benchmarks.image_methods import ImageTable, Split, fixed_epochs, scores_among
from mednovelty.benchmarks.image_sets import image_set
from mednovelty.benchmarks.ranges import check_numbers
from mednovelty.devices import chosen
from mednovelty.methods.image_vae import FASHION_MNIST, ImageVAE, ImageVAEMethod, closed_forms, misfits
from mednovelty.methods.image_vae_comparison import mean_image
from mednovelty.metrics import Ranking, auroc, average_precision
from mednovelty.schedule import TrainSettings
from mednovelty.seeds import generator
from mednovelty.train import train

SCORES = ("reconstruction", "kl", "elbo", "mean_image", "darkness")
BATCH = 2000


@dataclass(frozen=True, slots=True)
class LeaveOneOutSettings:
    """What the TOML file sets.

    Args:
        log_c: Log standard deviation of p(x|z).
        epochs: Passes over the training images.
        batch: Images a step.
        learning_rate: Adam's.
        latent: Z.
        scaling: How often an image is repeated.
        images: At most as many training images, the first; 0: all.
        released_code: Sample as the released code does.
    """

    log_c: float
    epochs: int
    batch: int
    learning_rate: float
    latent: int
    scaling: int
    images: int
    released_code: bool

    def __post_init__(self) -> None:
        check_numbers(self)

    def method(self) -> ImageVAEMethod:
        """Return the paper's fully connected VAE."""
        return ImageVAEMethod(
            replace(FASHION_MNIST, latent=self.latent, log_c=self.log_c, released_sampler=self.released_code)
        )

    def training(self) -> TrainSettings:
        """Return a fixed number of epochs at a fixed rate."""
        how = fixed_epochs(self.epochs, self.batch, self.learning_rate)
        return replace(how, validation_voxels=2000, min_improvement=0.01)


class LeaveOneClassOut:
    """One class is left out of training and novel in the test, by the terms of a VAE."""

    Settings: ClassVar[type] = LeaveOneOutSettings

    def scores(self, method: str, asked: Sequence[str]) -> tuple[str, ...]:
        """Return which scores of those asked for there are."""
        return scores_among(asked, SCORES, "leave-one-class-out")

    def check(self, method: str, settings: LeaveOneOutSettings) -> None:
        """Refuse settings that a method cannot be made with."""
        _ = settings.method(), settings.training()

    def run(self, task: Task, settings: LeaveOneOutSettings) -> Findings:
        """Train without one class, and return AUROC and AP of each score."""
        images, test, novel = left_out(task, settings)
        device = chosen(task.device)
        data = ImageTable(torch.from_numpy(images), (1, 1, images.shape[1]), device)
        method = settings.method()
        model = method.build(data.shape).to(device)
        record = train(method, model, data, data, settings.training(), seed=task.cell.seed)
        scores = scores_of(model, test, settings, task.cell.seed)
        scores["mean_image"] = ((test - mean_image(data)[0]) ** 2).sum(1)
        scores["darkness"] = -test.mean(1)
        best = record.rows[record.best_epoch].validation
        told = {
            "images": {"training": len(images), "normal": int((~novel).sum()), "novel": int(novel.sum())},
            "epochs": len(record.rows) - 1,
            "best_epoch": record.best_epoch,
            "training_elbo": best["elbo"],
            "training_kl": best["kl"],
            "active_latents": best["active_latents"],
        }
        rows = [row for name in task.scores for row in _measured(name, scores[name], novel)]
        return Findings(tuple(rows), told)

    def split(self, task: Task, settings: LeaveOneOutSettings) -> Split:
        """Return the images of a cell, each once, whatever they are scaled by; none is held out."""
        seen, test, novel = left_out(task, replace(settings, scaling=1))
        shape = image_set(task.cell.dataset, task.folder).shape
        training = torch.from_numpy(seen)
        return Split(training, training[:0], torch.from_numpy(test), novel, shape)


def left_out(task: Task, settings: LeaveOneOutSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training images without a class, all test images, and which of these are of that class.

    Args:
        task: Data set and class are used.
        settings: Scaling and number of images are used.

    Returns:
        ``(n, 784)`` and ``(m, 784)`` float32 between 0 and 1, repeated, and ``(m,)`` bool.
    """
    images, odd = image_set(task.cell.dataset, task.folder), int(task.cell.label)
    seen = images.training[images.labels != odd][: settings.images or None]
    seen, test = (np.tile(flat(rows), (1, settings.scaling)) for rows in (seen, images.test))
    return seen, test, images.truth == odd


@torch.no_grad()
def scores_of(
    model: ImageVAE, x: np.ndarray, settings: LeaveOneOutSettings, seed: int
) -> dict[str, np.ndarray]:
    """Return ``(m,)`` scores by name, in nats an image; higher is more novel."""
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    device = model.log_c.device
    noise = generator(seed, "test", device=device)
    for block in torch.from_numpy(x).to(device).split(BATCH):
        misfit, kl = closed_forms(model, block, noise, released_sampler=settings.released_code)
        if not settings.released_code:
            misfit = misfits(model, block, model.image(model.posterior(block)[0]))
        parts.append((misfit.cpu(), kl.sum(1).cpu()))
    reconstruction, divergence = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return {"reconstruction": reconstruction, "kl": divergence, "elbo": reconstruction + divergence}


def _measured(name: str, scores: np.ndarray, novel: np.ndarray) -> tuple[Measured, Measured]:
    ranking = Ranking.of(scores, novel, name)
    return Measured(name, auroc(ranking)), Measured(name, average_precision(ranking), "ap")


__all__ = ["SCORES", "LeaveOneClassOut", "LeaveOneOutSettings", "left_out", "scores_of"]

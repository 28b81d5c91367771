"""An autoencoder whose encoder is a one-class network: how Deep SVDD and its relatives start.

Ruff 2021, appendix B.1. The autoencoder is built around the network itself. Nothing is copied, so nothing can
fail to be: a released implementation of Deep SAD looks the weights up under names that they do not have, and
starts from none of them. The decoder is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from mednovelty.methods.hypersphere_settings import HypersphereSettings
from mednovelty.nn.one_class import ConvolutionalDecoder, DenseNetwork
from mednovelty.schedule import TrainSettings
from mednovelty.train import train

SHARE_FAST, SLOWER = 250 / 350, 0.1
"""The thesis' autoencoders have 250 epochs at one rate, and 100 at a tenth of it."""


class Pretrained(nn.Module):
    """A one-class model's encoder, and a decoder.

    Args:
        model: Whose encoder it is, and who splits and standardises rows.
        settings: Of that model.
    """

    def __init__(self, model: Any, settings: HypersphereSettings) -> None:
        super().__init__()
        self.encoder = model.encoder
        filters, units = settings.filters_for(model.shape), settings.units
        self.decoder: ConvolutionalDecoder | DenseNetwork
        if filters:
            self.decoder = ConvolutionalDecoder(model.shape, filters, model.latents, units)
        else:
            self.decoder = DenseNetwork(model.latents, settings.hidden[::-1], model.channels, units)
        self.sigmoid = settings.pretrain_output == "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        """Return reconstructions, ``(B, D)``, of samples as the network sees them."""
        image = self.decoder(self.encoder(x))
        return torch.sigmoid(image) if self.sigmoid else image


class PretrainingMethod:
    """Squared errors, summed over a sample's values; labelled anomalies count for nothing.

    Args:
        model: The one-class model.
        settings: Its settings.
    """

    def __init__(self, model: Any, settings: HypersphereSettings) -> None:
        self.model, self.settings = model, settings

    def start(self, network: Pretrained, normals: Any, generator: Generator) -> None:
        """Draw the decoder's weights: the encoder has its own."""
        network.decoder.initialise(generator)

    def parameter_groups(self, network: Pretrained) -> list[dict[str, Any]]:
        """Return all weights, which decay."""
        return [{"params": list(network.parameters()), "weight_decay": self.settings.weight_decay}]

    def loss(self, network: Pretrained, rows: Tensor, epoch: int, generator: Generator) -> dict[str, Tensor]:
        """Return ``loss``, a mean over the batch."""
        return {"loss": self._errors(network, rows).mean()}

    @torch.no_grad()
    def validate(
        self, network: Pretrained, batches: Iterable[Tensor], generator: Generator
    ) -> dict[str, float]:
        """Return the mean over all samples."""
        return {"loss": torch.cat([self._errors(network, rows) for rows in batches]).double().mean().item()}

    def _errors(self, network: Pretrained, rows: Tensor) -> Tensor:
        x, labels = self.model.split(rows)
        x = self.model.standardised(x)
        errors = (network(x) - x).square().sum(1)
        return errors if labels is None else errors * (labels >= 0)


def pretrain(model: Any, settings: HypersphereSettings, normals: Any, generator: Generator) -> Tensor:
    """Train a model's encoder in place as an autoencoder's.

    Args:
        model: With weights drawn; on whatever device.
        settings: Epochs and rate are used.
        normals: Training rows, a ``VoxelCache``; the best epoch is chosen by some of them.
        generator: On the CPU.

    Returns:
        ``(2,)`` mean squared error of a sample before and after.

    Raises:
        SettingsError: The loss is not finite.
        StoppedError: Ctrl-C or SIGTERM.
    """
    normals = getattr(normals, "own", normals)  # Outliers have nothing to teach an autoencoder of normals.
    method, network = PretrainingMethod(model, settings), Pretrained(model, settings)
    epochs = settings.pretrain_epochs
    how = TrainSettings(
        batch_size=settings.pretrain_batch,
        learning_rate=settings.pretrain_rate,
        max_epochs=epochs,
        patience=epochs + 1,
        plateau_patience=max(1, round(SHARE_FAST * epochs)),
        plateau_factor=SLOWER,
        min_learning_rate=SLOWER * settings.pretrain_rate,
        # Nothing improves as much: the rate falls after so many epochs whatever the loss.
        min_improvement=1e30,
    )
    device = next(model.parameters()).device
    seed = int(torch.randint(1 << 31, (), generator=generator))
    with torch.enable_grad():  # Whoever starts a model may have switched derivatives off.
        record = train(method, network.to(device), normals, normals, how, seed=seed)
    return torch.tensor([record.losses[0], min(record.losses)], device=device)


__all__ = ["Pretrained", "PretrainingMethod", "pretrain"]

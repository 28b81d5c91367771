"""Plug-ins as somebody else would write them: a method that is no VAE of ours, a view."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import torch
from torch import nn
from torch.distributions import Independent, Normal

from mednovelty import plugins
from mednovelty.views.voxel import VoxelView


@dataclass(frozen=True)
class AffineSettings:
    axes: int = 2


class AffineModel(nn.Module):
    """Projects on a few channels' differences and back; only the widths are learned."""

    def __init__(self, channels, axes):
        super().__init__()
        self.channels = channels
        self.maps = nn.Parameter(torch.empty(axes, channels))
        self.log_sigma = nn.Parameter(torch.empty(channels))

    @property
    def prior(self):
        zeros = self.log_sigma.new_zeros(len(self.maps))
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def encode(self, x):
        mean = x @ self.maps.T
        return Independent(Normal(mean, torch.full_like(mean, 0.7)), 1)

    def decode(self, z):
        mean = z @ self.maps
        return Independent(Normal(mean, self.log_sigma.exp().expand_as(mean)), 1)


class AffineMethod:
    """Trains an affine model."""

    Settings = AffineSettings

    def __init__(self, settings=None):
        self.settings = settings or AffineSettings()

    def build(self, shape):
        return AffineModel(shape[0], self.settings.axes)

    def start(self, model, normals, generator):
        model.maps.data.copy_(torch.randn(model.maps.shape, generator=generator) / model.channels)
        model.log_sigma.data.zero_()

    def loss(self, model, x, epoch, generator):
        return {"loss": -model.decode(model.encode(x).mean).log_prob(x).mean()}

    @torch.no_grad()
    def validate(self, model, batches, generator):
        losses = [(self.loss(model, x, 1, generator)["loss"].item(), len(x)) for x in batches]
        return {"loss": sum(loss * n for loss, n in losses) / sum(n for _, n in losses)}

    def assess(self, model, training, validation, generator):
        loss = self.validate(model, map(torch.from_numpy, validation.blocks()), generator)["loss"]
        return {"verdict": f"an affine map, {loss:.3f} nats off", "collapsed": loss > 1e6, "loss": loss}


class UpsideDownView(VoxelView):
    """Puts every score back with its sign changed, so that a test sees whose view it was."""

    def assemble(self, scan, scores, name):
        return super().assemble(scan, -scores, name)


def install(monkeypatch):
    """Offer them under the names ``affine`` and ``upside_down``, as an installed distribution would."""
    real = plugins._points
    more = {
        "methods": [EntryPoint("affine", "strangers:AffineMethod", "mednovelty.methods")],
        "views": [EntryPoint("upside_down", "strangers:UpsideDownView", "mednovelty.views")],
    }
    monkeypatch.setattr(plugins, "_points", lambda group: [*real(group), *more.get(group, [])])

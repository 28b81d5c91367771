"""Small samples that anomalies are planted in."""

import torch

from mednovelty.anomalies.bundles import bundle_attenuation
from mednovelty.anomalies.geometry import smooth_fields
from mednovelty.anomalies.host import Gradients, Host
from mednovelty.seeds import generator

SLICES, VOLUMES = (23, 31), (11, 14, 9)
SPACINGS = {2: (2.0, 3.0), 3: (3.0, 2.5, 4.0)}


def drawn(seed=0):
    return generator(seed, "test anomalies")


def ball_mask(n, space):
    """An ellipsoid that leaves the corners outside."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in space], indexing="ij")
    inside = sum(axis.square() for axis in axes) <= 1.05
    return inside.expand(n, *space).contiguous()


def images(space=SLICES, n=6, channels=2, seed=0):
    """Smooth tissue of mean 3 and standard deviation 0.5 in a mask, 0 around it."""
    spacing = torch.tensor(SPACINGS[len(space)]).expand(n * channels, -1)
    fields = smooth_fields(space, spacing, torch.full((n * channels,), 4.0), drawn(seed))
    mask = ball_mask(n, space)
    tissue = 3 + 0.5 * fields.reshape(n, channels, *space)
    return Host(tissue * mask[:, None], mask, SPACINGS[len(space)])


def directions(count, seed=0):
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=drawn(seed)), dim=1)


def gradients(count=14, divisors=None, divided_by_b0=False, b0s=2):
    """Two shells after some volumes at b = 0."""
    b = torch.tensor([0.0] * b0s + [700.0] * (count // 2) + [1500.0] * (count - count // 2))
    g = torch.cat([torch.zeros(b0s, 3), directions(count)])
    return Gradients(b, g, divisors, divided_by_b0)


def crossing_signals(scheme, n, seed=0, s0=90.0):
    """Two bundles along measured directions and something isotropic, ``(n, C)``; the shares; the parts."""
    b, g = scheme.bvalues_s_per_mm2, scheme.directions
    weighted = g[b > 50]
    first = weighted[0]
    second = weighted[(weighted @ first).abs().argmin()]
    shares = torch.rand(n, 3, generator=drawn(seed)) + torch.tensor([0.5, 0.5, 0.1])
    shares = shares / shares.sum(1, keepdim=True)
    parts = [bundle_attenuation(u[None], b, g) for u in (first, second)] + [torch.exp(-b * 1.2e-3)[None]]
    return s0 * sum(share[:, None] * part for share, part in zip(shares.T, parts, strict=True)), shares, parts


def diffusion(space=VOLUMES, n=3, scheme=None):
    """Voxels, or volumes, of crossing bundles."""
    scheme = scheme or gradients()
    mask = ball_mask(n, space) if space else torch.ones(n, dtype=torch.bool)
    signals, *_ = crossing_signals(scheme, mask.numel())
    signals = signals if scheme.divisors is None else signals / scheme.divisors
    if scheme.divided_by_b0:
        signals = signals / 90
    return Host(signals.reshape(*mask.shape, -1).movedim(-1, 1).contiguous(), mask,
                SPACINGS[3] if space else (), scheme)  # fmt: skip

"""Vectors with few directions and some noise, as voxels have; and Gaussians around them."""

import torch


def cloud(count, width=9, seed=0, directions=3):
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(directions, width, generator=torch.Generator().manual_seed(1234))
    noise = torch.randn(count, width, generator=random)
    return torch.randn(count, directions, generator=random) @ mixing + 0.1 * noise + 5


def gaussians(count, width=5, seed=0, spread=1.0):
    """Means near a plane; sigmas that follow the place, differ between dimensions, and are not 1."""
    random = torch.Generator().manual_seed(seed)
    mean = cloud(count, width, seed)
    usual = torch.tensor([0.03, 0.2, 0.5, 0.1, 2.0]).repeat(-(-width // 5))[:width]
    log = spread * (0.3 * (mean[:, :1] - 5).tanh() + 0.1 * torch.randn(count, width, generator=random))
    return mean, usual * log.exp()

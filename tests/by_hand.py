"""A model, samples and normals small enough to work every score out with a pencil.

    q(z|x) = N((x0 + x1, x1 - x2), diag (1 + x0^2, 2 + |x1|)^2)
    p(x|z) = N((z0, z1, z0 + z1), diag (2, 1 + |z0|, 3 + |z1|)^2)

|     | sample     | mean, sigma of q  | mean, sigma of p(x | E q) |
| --- | ---------- | ----------------- | ------------------------- |
| x1  | (2, -1, 0) | (1, -1),  (5, 3)  | (1, -1, 0),  (2, 2, 4)    |
| x2  | (0, 2, 1)  | (2, 1),   (1, 4)  | (2, 1, 3),   (2, 3, 4)    |
| y1  | (1, 0, 2)  | (1, -2),  (2, 2)  | (1, -2, -1), (2, 2, 5)    |
| y2  | (0, 3, 1)  | (3, 2),   (1, 5)  | (3, 2, 5),   (2, 4, 5)    |
| y3  | (-2, 1, 0) | (-1, 1),  (5, 3)  | (-1, 1, 0),  (2, 2, 4)    |
"""

import math

import torch
from torch.distributions import Independent, Normal

from mednovelty.batch import Batch
from mednovelty.plugins import plugin
from mednovelty.reference import Reference

LOG_2PI = math.log(2 * math.pi)
X = torch.tensor([[2.0, -1, 0], [0, 2, 1]])
Y = torch.tensor([[1.0, 0, 2], [0, 3, 1], [-2, 1, 0]])
NOISE = torch.tensor([[0.2, -1], [-0.4, 0.5]])
DECODER_NOISE = torch.tensor([[1.0, 0, -1], [0.5, -2, 1]])


class ByHand:
    channels = 3
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

    def encode(self, x):
        mean = torch.stack([x[:, 0] + x[:, 1], x[:, 1] - x[:, 2]], dim=1)
        sigma = torch.stack([1 + x[:, 0].square(), 2 + x[:, 1].abs()], dim=1)
        return Independent(Normal(mean, sigma), 1)

    def decode(self, z):
        mean = torch.stack([z[:, 0], z[:, 1], z[:, 0] + z[:, 1]], dim=1)
        sigma = torch.stack([torch.full_like(z[:, 0], 2), 1 + z[:, 0].abs(), 3 + z[:, 1].abs()], dim=1)
        return Independent(Normal(mean, sigma), 1)


def scores(name, x=X):
    """Return what a score says of some samples."""
    kind, model = plugin("scorers", name), ByHand()
    reference = Reference.of(model, Y, kind.reference_parts)
    scorer = kind(**{need: {"model": model, "reference": reference}[need] for need in kind.needs})
    return scorer.score(Batch(x, noise=NOISE, decoder_noise=DECODER_NOISE)).tolist()

"""Every installed sample scorer keeps every promise of the contract."""

import pytest
import torch

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference
from mednovelty.testing.contracts import SCORER_CHECKS, check_upwards
from mednovelty.testing.models import LinearGaussianVAE, random_samples

CHANNELS, LATENT, NORMALS, DRAWS = 7, 3, 23, 4


@pytest.fixture(scope="module")
def parts():
    model = LinearGaussianVAE(CHANNELS, LATENT)
    normals = random_samples(NORMALS, CHANNELS, seed=1)
    reference = Reference.of(model, normals, {"input", "latent_mean"})
    is_b0 = torch.arange(CHANNELS) < 2
    return {"model": model, "reference": reference, "is_b0": is_b0}


@pytest.fixture(params=names("scorers"))
def scorer(request, parts):
    kind = plugin("scorers", request.param)
    return kind(**{need: parts[need] for need in kind.needs})


def make(x):
    noise = antithetic_noise(DRAWS, LATENT, torch.Generator().manual_seed(3))
    return Batch(x, noise=noise, signal=x.exp())


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_contract(scorer, check):
    check(scorer, make, random_samples(5, CHANNELS, seed=2))


def test_higher_is_more_novel(scorer):
    x = random_samples(5, CHANNELS, seed=2)
    if type(scorer).__name__ == "RawAttenuation":
        # Novel means that the diffusion-weighted signal is lost, the b=0 signal not.
        check_upwards(scorer, make, normal=x, novel=torch.where(scorer.is_b0, x, x - 2))
    else:
        check_upwards(scorer, make, normal=x, novel=x + 10)

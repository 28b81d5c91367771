"""Every installed sample scorer keeps every promise of the contract, alone and in company."""

import pytest
import torch

from mednovelty.batch import Batch, antithetic_noise
from mednovelty.capabilities import asked_by
from mednovelty.methods.vae import VAESettings
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference, part_widths
from mednovelty.testing.contracts import SCORER_CHECKS, check_upwards
from mednovelty.testing.models import HeteroscedasticVAE, LinearGaussianVAE, random_samples

CHANNELS, LATENT, NORMALS, DRAWS = 7, 3, 23, 4


def made(name, model):
    """Return a scorer whose reference holds what the scorer says it compares with, and nothing else."""
    kind = plugin("scorers", name)
    normals = random_samples(NORMALS, CHANNELS, seed=1)
    reference = Reference.of(model, normals, kind.reference_parts)
    parts = {"model": model, "reference": reference, "is_b0": torch.arange(CHANNELS) < 2}
    return kind(**{need: parts[need] for need in kind.needs})


@pytest.fixture(params=names("scorers"))
def name(request):
    return request.param


def make(x):
    noise = antithetic_noise(DRAWS, LATENT, torch.Generator().manual_seed(3))
    decoder_noise = antithetic_noise(DRAWS, CHANNELS, torch.Generator().manual_seed(4))
    return Batch(x, noise=noise, decoder_noise=decoder_noise, signal=x.exp())


@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_contract(name, check):
    check(made(name, HeteroscedasticVAE(CHANNELS, LATENT)), make, random_samples(5, CHANNELS, seed=2))


def test_higher_is_more_novel(name):
    scorer, x = made(name, LinearGaussianVAE(CHANNELS, LATENT)), random_samples(5, CHANNELS, seed=2)
    if name in ("rec_signed", "combi_signed"):
        # Brighter than expected, where the model expects more itself of what is brighter.
        start = x.clone().requires_grad_()
        residual = start - scorer.model.decode(scorer.model.encode(start).mean).mean
        (steepest,) = torch.autograd.grad(residual.sum(), start)
        check_upwards(scorer, make, normal=x, novel=x + 10 * steepest)
    elif name == "raw_attenuation":
        # Novel means that the diffusion-weighted signal is lost, the b=0 signal not.
        check_upwards(scorer, make, normal=x, novel=torch.where(scorer.is_b0, x, x - 2))
    else:
        check_upwards(scorer, make, normal=x, novel=x - 10 if name.endswith("_dark") else x + 10)


@pytest.mark.parametrize("order", [1, -1])
def test_scores_of_one_batch_are_those_of_batches_of_their_own(order):
    model, x = HeteroscedasticVAE(CHANNELS, LATENT), random_samples(5, CHANNELS, seed=2)
    reference = Reference.of(model, random_samples(NORMALS, CHANNELS, seed=1), part_widths(1, 1))
    parts = {"model": model, "reference": reference, "is_b0": torch.arange(CHANNELS) < 2}
    shared = make(x)
    for name in names("scorers")[::order]:
        kind = plugin("scorers", name)
        scorer = kind(**{need: parts[need] for need in kind.needs})
        torch.testing.assert_close(scorer.score(shared), scorer.score(make(x)), rtol=0, atol=0, msg=name)


def test_two_references_are_not_taken_for_one():
    # Scorers of one batch may differ in their normals: nothing of the one may be given for the other.
    model, x = HeteroscedasticVAE(CHANNELS, LATENT), random_samples(5, CHANNELS, seed=2)
    near, shared = random_samples(NORMALS, CHANNELS, seed=1), make(x)
    for name in names("scorers"):
        kind = plugin("scorers", name)
        if "reference" in kind.needs:
            first, second = (
                kind(model=model, reference=Reference.of(model, normals, kind.reference_parts))
                for normals in (near, near + 5)
            )
            first.score(shared)
            expected = second.score(make(x))
            assert not torch.allclose(first.score(shared), expected), name
            assert torch.equal(second.score(shared), expected), name


def test_a_copy_of_a_normal_is_at_no_distance():
    model, x = HeteroscedasticVAE(CHANNELS, LATENT), random_samples(NORMALS, CHANNELS, seed=1)[3:5]
    for name in ("nearest_normal", "latent_euclidean", "latent_bhattacharyya", "reconstruction_euclidean",
                 "reconstruction_bhattacharyya"):  # fmt: skip
        copy = made(name, model).score(make(x))
        torch.testing.assert_close(copy, torch.zeros(2), rtol=0, atol=2e-6, msg=name)


def test_samples_far_from_anything_have_finite_scores_in_order():
    # exp(-s) is 0 in float32 from s = 104 on: a density that is not kept as its logarithm ties all of them.
    from mednovelty.methods.vae import VAE

    model = VAE(CHANNELS, VAESettings(hidden=(6, 5), latent=LATENT)).eval().requires_grad_(False)
    for i, part in enumerate((model.encoder, model.decoder)):
        part.initialise(torch.Generator().manual_seed(i))
    x = torch.cat([random_samples(1, CHANNELS, seed=2) * 10**power for power in (1, 2, 3, 4)])
    for name in names("scorers"):
        kind = plugin("scorers", name)
        if "is_b0" not in kind.needs and set(asked_by(kind)) <= {"prior", "encode", "decode"}:
            scores = made(name, model).score(make(x))
            assert torch.isfinite(scores).all(), name
            # A derivative may fall where a network saturates.
            assert (scores.diff() > 0).all() or plugin("scorers", name).level == "voxel", name

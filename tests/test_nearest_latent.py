"""Nearest latent neighbours: Eq. (4), (7), (8) by hand, and what must hold of any of them."""

from dataclasses import replace

import pytest
import torch

from mednovelty.batch import Batch
from mednovelty.calibration import Scale, measured_constants, scale_of
from mednovelty.errors import SettingsError
from mednovelty.methods.nearest_latent import (
    NearestLatentNeighbours,
    NLNConsistency,
    NLNMap,
    NLNResidual,
)
from mednovelty.methods.vae import VAE, VAESettings
from mednovelty.neighbours.latent_settings import NLNSettings
from mednovelty.nn.point import Point
from mednovelty.reference import Reference
from mednovelty.testing.models import HeteroscedasticVAE, LinearGaussianVAE, PointAutoencoder, random_samples

CHANNELS, LATENT, NORMALS = 7, 3, 23
KINDS = (NearestLatentNeighbours, NLNResidual, NLNConsistency, NLNMap)


class Sums:
    """f(x) = (x_0, x_1), g(z) = (z_0, z_1, z_0 + z_1), q(x) = 10 x_2, f_con(x) = (x_2, -x_0)."""

    channels, latents = 3, 2

    def encode(self, x):
        return Point(x[:, :2])

    def decode(self, z):
        return Point(torch.cat([z, z.sum(1, keepdim=True)], 1))

    def features(self, x):
        return 10 * x[:, 2:]

    def consistent(self, x):
        return torch.stack([x[:, 2], -x[:, 0]], 1)


class Identity:
    """An autoencoder that changes nothing."""

    channels = latents = CHANNELS

    def encode(self, x):
        return Point(x)

    decode = encode


def reference_of(model, normals):
    return Reference.of(model, normals, ["latent_mean"])


# Of x = (1, 2, 0), the nearest latents are (1, 2 + 3) = 3 away and (1 + 4, 2 + 3) = 5 away.
BY_HAND = torch.tensor([[5.0, 5.0, 9.0], [1.0, 5.0, -4.0], [50.0, 50.0, 0.0]])
X = torch.tensor([[1.0, 2.0, 0.0]])


def terms(kind, k, **settings):
    model = Sums()
    scorer = kind(model, reference_of(model, BY_HAND), NLNSettings(k=k, **settings))
    return [value.tolist() for value in scorer.terms_of(Batch(X)).values()]


def test_equation_4():
    # g(1, 5) = (1, 5, 6): |x - g| = 0 + 3 + 6; g(5, 5) = (5, 5, 10): 4 + 3 + 10. Over three values.
    assert terms(NearestLatentNeighbours, 1) == [[3.0], [3.0]]
    assert terms(NearestLatentNeighbours, 2) == [[pytest.approx((9 + 17) / 6)], [4.0]]


def test_equation_7():
    # q(x) = 0; q of the decoded neighbours = 60, 100.
    assert terms(NLNResidual, 2) == [[80.0], [4.0]]


def test_equation_8():
    # f(x) = (1, 2); f_con(1, 5, 6) = (6, -1), f_con(5, 5, 10) = (10, -5): |.| = 5 + 3 and 9 + 7.
    assert terms(NLNConsistency, 2) == [[(8 + 16) / 4], [4.0]]


def test_equation_8_as_the_released_code_has_it():
    # g(f(x)) = (1, 2, 3), f_con of it (3, -1); the neighbours' latents (1, 5), (5, 5): 2 + 6 and 2 + 6.
    assert terms(NLNConsistency, 2, reverse=True) == [[4.0], [4.0]]


def test_both_terms_are_normalised_before_they_are_weighed():
    constants = {"error": Scale(1.0, 4.0), "distance": Scale(-2.0, 5.0)}
    model = Sums()
    scorer = NearestLatentNeighbours(model, reference_of(model, BY_HAND), NLNSettings(1, 0.75), constants)
    # 0.75 (3 - 1) / 4 + 0.25 (3 + 2) / 5
    assert scorer.score(Batch(X)).tolist() == [pytest.approx(0.375 + 0.25)]


@pytest.mark.parametrize("k", [1, 4, NORMALS])
def test_neighbours_are_those_of_brute_force_ties_and_all_of_them(k):
    model, x = LinearGaussianVAE(CHANNELS, LATENT), random_samples(5, CHANNELS, seed=2)
    normals = random_samples(NORMALS, CHANNELS, seed=1)
    normals[3:7] = normals[2]  # Five at the same place.
    x[0] = normals[2]
    distances = torch.cdist(model.encode(x).mean.double(), model.encode(normals).mean.double())
    expected = distances.sort(1).values[:, :k].mean(1)
    scorer = NearestLatentNeighbours(model, reference_of(model, normals), NLNSettings(k, 0.0))
    torch.testing.assert_close(scorer.score(Batch(x)).double(), expected, rtol=1e-5, atol=1e-5)


def test_more_neighbours_than_normals_are_refused():
    model = Sums()
    scorer = NearestLatentNeighbours(model, reference_of(model, BY_HAND), NLNSettings(k=4))
    with pytest.raises(
        SettingsError, match=r"nln.k=4: the reference holds 3 normals; set nln.k to one of 1 to 3"
    ):
        scorer.score(Batch(X))


def test_alpha_1_is_the_error_alone():
    model, x = PointAutoencoder(CHANNELS, LATENT), random_samples(5, CHANNELS, seed=2)
    normals = random_samples(NORMALS, CHANNELS, seed=1)
    near = torch.cdist(model.encode(x).mean, model.encode(normals).mean).argsort(1)[:, :3]
    images = model.decode(model.encode(normals).mean).mean[near]
    scorer = NearestLatentNeighbours(model, reference_of(model, normals), NLNSettings(3, 1.0))
    torch.testing.assert_close(scorer.score(Batch(x)), (x[:, None] - images).abs().mean((1, 2)))


def test_a_normal_is_at_no_distance_and_its_error_is_that_of_its_reconstruction():
    model, normals = PointAutoencoder(CHANNELS, LATENT), random_samples(NORMALS, CHANNELS, seed=1)
    scorer = NearestLatentNeighbours(model, reference_of(model, normals), NLNSettings(k=1))
    found = scorer.terms_of(Batch(normals[4:9]))
    own = model.decode(model.encode(normals[4:9]).mean).mean
    torch.testing.assert_close(found["distance"], torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(found["error"], (normals[4:9] - own).abs().mean(1))


def test_an_identity_is_nearest_neighbours_among_samples():
    x, normals = random_samples(5, CHANNELS, seed=2), random_samples(NORMALS, CHANNELS, seed=1)
    nearest = normals[torch.cdist(x, normals).argsort(1)[:, :2]]
    found = NearestLatentNeighbours(Identity(), reference_of(Identity(), normals), NLNSettings(2)).terms_of(
        Batch(x)
    )
    torch.testing.assert_close(found["error"], (x[:, None] - nearest).abs().mean((1, 2)))
    torch.testing.assert_close(found["distance"], (x[:, None] - nearest).square().sum(2).sqrt().mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_normals_does_not_matter(kind):
    model, x = HeteroscedasticVAE(CHANNELS, LATENT), random_samples(5, CHANNELS, seed=2)
    normals = random_samples(NORMALS, CHANNELS, seed=1)
    shuffled = normals[torch.randperm(NORMALS, generator=torch.Generator().manual_seed(3))]
    first, second = (kind(model, reference_of(model, some)).score(Batch(x)) for some in (normals, shuffled))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_constants_are_of_held_out_normals_so_that_a_sample_scores_alone_as_in_company(kind):
    model = HeteroscedasticVAE(CHANNELS, LATENT)
    reference = reference_of(model, random_samples(NORMALS, CHANNELS, seed=1))
    held_out, x = random_samples(200, CHANNELS, seed=4), 10 + random_samples(6, CHANNELS, seed=2)
    measured = measured_constants({"s": kind(model, reference)}, Batch, held_out.split(64), [2])[2]["s"]
    scorer = kind(model, reference, NLNSettings(), measured)
    for term, values in scorer.terms_of(Batch(held_out)).items():
        normalised = measured[term](values)
        assert normalised.mean().item() == pytest.approx(0, abs=1e-5)
        assert normalised.std(correction=0).item() == pytest.approx(1, rel=1e-5)
    together = scorer.score(Batch(x))
    torch.testing.assert_close(together, torch.cat([scorer.score(Batch(row[None])) for row in x]))
    assert (together > 0).all()


def test_terms_that_never_change_are_not_divided_by_nothing():
    assert scale_of(torch.full((5,), 3.0)) == Scale(3.0, 1.0)
    assert scale_of(torch.tensor([1.0, 5.0])) == Scale(3.0, 2.0)


class Images(PointAutoencoder):
    """Two contrasts of 2 x 3 pixels."""

    def __init__(self):
        super().__init__(12, LATENT)
        self.shape = (2, 2, 3)


def test_the_mean_of_a_map_is_the_score_of_its_sample():
    model, x = Images(), random_samples(5, 12, seed=2)
    reference = reference_of(model, random_samples(NORMALS, 12, seed=1))
    how = NLNSettings(3, 0.6), {"error": Scale(0.3, 2.0), "distance": Scale(0.7, 3.0)}
    found, batch = NLNMap(model, reference, *how).score(Batch(x)), Batch(x)
    assert found.shape == (5, 2, 3)
    torch.testing.assert_close(
        found.mean((1, 2)), NearestLatentNeighbours(model, reference, *how).score(batch)
    )


def test_a_map_is_large_where_the_sample_is_off():
    model, x = Images(), random_samples(4, 12, seed=2)
    reference = reference_of(model, random_samples(NORMALS, 12, seed=1))
    scorer = NLNMap(model, reference, NLNSettings(1, 1.0))
    image = model.decode(reference.parts["latent_mean"]).mean
    near = torch.cdist(model.encode(x).mean, reference.parts["latent_mean"]).argmin(1)
    expected = (x - image[near]).abs().unflatten(1, (2, 2, 3)).mean(1)
    torch.testing.assert_close(scorer.score(Batch(x)), expected)


def test_a_model_without_what_a_score_asks_for_is_refused_in_words():
    vae = VAE(CHANNELS, VAESettings(hidden=(6,), latent=LATENT))
    reference = Reference({}, "exact", 0)
    with pytest.raises(
        SettingsError, match=r"NLNResidual: needs the features of a discriminator, which .*; VAE does not"
    ):
        NLNResidual(vae, reference)
    with pytest.raises(
        SettingsError, match="NLNConsistency: needs a second encoder, which the method ae_con"
    ):
        NLNConsistency(vae, reference)


def test_settings_have_bounds():
    for wrong, words in (
        ({"k": 0}, "nln.k must lie between 1 and 1000, got 0"),
        ({"alpha": 1.1}, "nln.alpha must lie between 0 and 1, got 1.1"),
    ):
        with pytest.raises(SettingsError, match=words):
            replace(NLNSettings(), **wrong)

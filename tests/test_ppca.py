import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from mednovelty.errors import SettingsError
from mednovelty.methods.ppca import ProbabilisticPCA


def correlated(n, channels, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((channels, channels)) * np.geomspace(3, 0.2, channels)
    return rng.standard_normal((n, channels)) @ mixing.T + rng.standard_normal(channels)


def fitted(x, components):
    return ProbabilisticPCA.fit(x.mean(0), np.cov(x.T, bias=True), components)


def test_by_hand_three_channels_one_component():
    # Covariance diag(9, 3, 1), q = 1: sigma^2 = (3 + 1) / 2 = 2 (Eq. 8), W = (sqrt(9 - 2), 0, 0)' (Eq. 7),
    # posterior of x - mu = (3, 1, 1): mean sqrt(7) / 9 * 3, standard deviation sqrt(2 / 9) (Eq. 6),
    # log p = -0.5 (3 log 2pi + log(9 * 2 * 2) + 9/9 + 1/2 + 1/2).
    mu = np.array([5.0, -1.0, 2.0])
    pca = ProbabilisticPCA.fit(mu, np.diag([9.0, 3.0, 1.0]), 1)
    assert pca.noise_variance == pytest.approx(2)
    np.testing.assert_allclose(pca.loadings, [[math.sqrt(7)], [0], [0]], atol=1e-12)
    mean, sigma = pca.posterior(mu + np.array([[3.0, 1.0, 1.0]]))
    np.testing.assert_allclose(mean, [[math.sqrt(7) / 3]])
    np.testing.assert_allclose(sigma, [math.sqrt(2) / 3])
    expected = -0.5 * (3 * math.log(2 * math.pi) + math.log(36) + 2)
    np.testing.assert_allclose(pca.log_likelihood(mu + np.array([[3.0, 1.0, 1.0]])), [expected])


@pytest.mark.parametrize("components", [1, 3, 6])
def test_log_likelihood_is_that_of_the_marginal_gaussian(components):
    x = correlated(500, 7)
    pca = fitted(x, components)
    marginal = pca.loadings @ pca.loadings.T + pca.noise_variance * np.eye(7)
    expected = multivariate_normal(x.mean(0), marginal).logpdf(x[:11])
    np.testing.assert_allclose(pca.log_likelihood(x[:11]), expected, rtol=1e-10)


def test_agrees_with_scikit_learn():
    x = correlated(400, 6)
    # scikit-learn divides the covariance by n - 1.
    pca = ProbabilisticPCA.fit(x.mean(0), np.cov(x.T), 2)
    np.testing.assert_allclose(
        pca.log_likelihood(x), PCA(2, svd_solver="full").fit(x).score_samples(x), rtol=1e-8
    )


def test_posterior_is_that_of_the_joint_gaussian():
    x = correlated(300, 5)
    pca = fitted(x, 2)
    w, s2 = pca.loadings, pca.noise_variance
    m = w.T @ w + s2 * np.eye(2)
    mean, sigma = pca.posterior(x[:4])
    np.testing.assert_allclose(mean, (x[:4] - x.mean(0)) @ w @ np.linalg.inv(m))
    np.testing.assert_allclose(np.diag(sigma**2), s2 * np.linalg.inv(m), atol=1e-12)


@given(seed=st.integers(0, 1000), step=st.floats(-0.3, 0.3))
def test_maximum_likelihood_no_other_noise_is_better(seed, step):
    x = correlated(60, 5, seed)
    pca = fitted(x, 2)
    noise = pca.noise_variance * math.exp(step)
    marginal = pca.loadings @ pca.loadings.T + noise * np.eye(5)
    other = multivariate_normal(x.mean(0), marginal).logpdf(x).mean()
    assert other <= pca.log_likelihood(x).mean() + 1e-9


def test_more_components_fit_their_own_data_better():
    x = correlated(500, 7)
    levels = [fitted(x, q).log_likelihood(x).mean() for q in range(1, 7)]
    assert levels == sorted(levels)


def test_repeated_channels_leave_a_little_noise():
    x = correlated(50, 3)
    pca = fitted(np.hstack([x, x]), 4)
    assert pca.noise_variance > 0
    assert np.isfinite(pca.log_likelihood(np.hstack([x, x]))).all()


@pytest.mark.parametrize("components", [0, 5, 9])
def test_number_of_components_is_checked(components):
    with pytest.raises(SettingsError, match=f"5 channels takes 1 to 4 components, not {components}"):
        fitted(correlated(30, 5), components)


def test_moments_must_be_finite():
    with pytest.raises(SettingsError, match="not finite"):
        ProbabilisticPCA.fit(np.array([0.0, np.nan]), np.eye(2), 1)

"""Shallow baselines: scikit-learn's own scores, numbers by hand, samples few, wide or constant."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from mednovelty.batch import Batch
from mednovelty.errors import SettingsError
from mednovelty.methods.shallow.forest import usual_depth
from mednovelty.methods.shallow.preparing import told_in_words
from mednovelty.methods.shallow.scores import OutlierScore
from mednovelty.methods.shallow.settings import KDESettings
from mednovelty.plugins import plugin
from mednovelty.testing.contracts import SCORER_CHECKS, check_upwards
from mednovelty.voxel_cache import VoxelCache

CHANNELS = 6
SETTINGS = {
    "pca": {"variance": 0.9},
    "kernel_pca": {"samples": 150, "gamma": 0.03, "variance": 0.8},
    "kde": {"samples": 150, "lowest_log2": -3.0, "bandwidths": 7},
    "ocsvm": {"samples": 150, "nu": 0.2},
    "isolation_forest": {"trees": 13, "tree_samples": 64},
    "gaussian": {},
    "gaussian_mixture": {"gaussians": 3, "regularisation": 1e-4},
    "minimum_volume_ellipsoid": {"support": 0.8},
    "local_outlier_factor": {"samples": 150, "neighbours": 7},
}


def samples(n=240, channels=CHANNELS, seed=0):
    """Samples in two clouds near a plane; values differ in mean and spread."""
    random, same = np.random.default_rng(seed), np.random.default_rng(77)
    plane = random.normal(size=(n, 2)) + 3 * random.integers(0, 2, (n, 1))
    values = plane @ same.normal(size=(2, channels)) + 0.3 * random.normal(size=(n, channels))
    return (values * same.uniform(0.5, 4, channels) + same.uniform(-20, 20, channels)).astype(np.float32)


def cache_of(x):
    return VoxelCache.from_array(x, [str(i) for i in np.arange(len(x)) * 3 // len(x)])


def method_of(name, **settings):
    kind = plugin("methods", name)
    return kind(kind.Settings(**SETTINGS[name] | settings))


def fitted(method, x, dtype=torch.float32, seed=5):
    """Return a fitted model and the estimator that it is a copy of, with the rows it was fitted on."""
    model = method.build(x.shape[1:]).to(dtype)
    kept = {}
    estimate = model.estimator
    model.estimator = lambda rows, seed: kept.setdefault("it", (estimate(rows, seed), rows))[0]
    method.start(model, cache_of(x), torch.Generator().manual_seed(seed))
    del model.estimator
    return model.eval(), *kept["it"]


def expected(name, model, estimator, rows, x):
    """Return what scikit-learn says of samples, higher is more novel."""
    prepared = model.preparation(x).double().numpy()
    if name == "pca":
        return pca_error(model, x)
    if name == "kernel_pca":
        return feature_error(model, estimator, rows, prepared)
    if name in ("gaussian", "minimum_volume_ellipsoid"):
        return estimator.mahalanobis(prepared)
    return -(estimator.decision_function if name == "ocsvm" else estimator.score_samples)(prepared)


def pca_error(model, x):
    from sklearn.decomposition import PCA

    standardised = (samples() - samples().mean(0, dtype=float)) / samples().std(0, dtype=float)
    there = PCA(0.9).fit(standardised)
    assert there.n_components_ == int(model.axes.used)
    z = model.preparation.standardised(x).double().numpy()
    return ((z - there.inverse_transform(there.transform(z))) ** 2).sum(1)


def feature_error(model, estimator, rows, z):
    from sklearn.metrics.pairwise import rbf_kernel

    within, across = rbf_kernel(rows, gamma=0.03), rbf_kernel(z, rows, gamma=0.03)
    length = 1 - 2 * across.mean(1) + within.mean()
    return length - (estimator.transform(z)[:, : int(model.used)] ** 2).sum(1)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-9, 1e-9), (torch.float32, 2e-4, 2e-4)]
)
def test_scores_are_those_of_scikit_learn_with_higher_more_novel(name, dtype, rtol, atol):
    model, estimator, rows = fitted(method_of(name), samples(), dtype)
    x = torch.from_numpy(np.concatenate([samples(40, seed=1), samples(9, seed=2) * 1.5])).to(dtype)
    scores = model.novelty(x)
    assert (scores.shape, scores.dtype) == ((49,), dtype)
    found = expected(name, model, estimator, rows, x)
    assert np.ptp(found) > 10 * atol
    np.testing.assert_allclose(scores.numpy(), found, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("check", SCORER_CHECKS, ids=lambda check: check.__name__)
def test_the_score_of_each_model_keeps_the_contract(name, check):
    model, *_ = fitted(method_of(name), samples())
    check(OutlierScore(model.requires_grad_(False)), Batch, torch.from_numpy(samples(5, seed=1)))


@pytest.mark.parametrize("name", SETTINGS)
def test_higher_is_more_novel(name):
    model, *_ = fitted(method_of(name), samples())
    normal = torch.from_numpy(samples(30, seed=1))
    odd = normal + torch.tensor([9.0, -9, 9, -9, 9, -9])
    check_upwards(OutlierScore(model), Batch, normal=normal, novel=odd)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_is_its_tensors(name):
    method = method_of(name)
    model, *_ = fitted(method, samples())
    again = method.build((CHANNELS,))
    again.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})
    x = torch.from_numpy(samples(20, seed=3))
    assert torch.equal(model.novelty(x), again.novelty(x))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_room_that_is_not_used_has_no_effect():
    x = torch.from_numpy(samples(20, seed=3))
    for name in ("kde", "ocsvm", "kernel_pca", "local_outlier_factor"):
        # The same samples either way: there are no more.
        snug, *_ = fitted(method_of(name, samples=240), samples())
        wide, *_ = fitted(method_of(name, samples=999), samples())
        assert wide.points.shape == (999, CHANNELS)
        torch.testing.assert_close(snug.novelty(x), wide.novelty(x), rtol=1e-4, atol=1e-5)


def test_kde_by_hand():
    rows = np.array([[0.0, 1], [2, 1], [4, -5]], np.float32)
    model, *_ = fitted(method_of("kde", standardise=False, bandwidth=1.5), rows)
    #   from (1, 1): squared distances 1, 1, 45; two dimensions, h = 1.5
    densities = [np.exp(-squared / 4.5) / (2 * np.pi * 2.25) for squared in (1, 1, 45)]
    expected = -np.log(np.mean(densities))
    assert model.novelty(torch.tensor([[1.0, 1.0]])).item() == pytest.approx(expected, rel=1e-6)
    # Where every density is 0 in float32, its logarithm still tells near from far.
    far = model.novelty(torch.tensor([[1e3, 0.0], [1e4, 0.0]]))
    assert far.tolist() == pytest.approx([logsumexp_of(1e3), logsumexp_of(1e4)], rel=1e-5)


def logsumexp_of(at):
    squared = np.array([at**2 + 1, (at - 2) ** 2 + 1, (at - 4) ** 2 + 25])
    return -logsumexp(-squared / 4.5) + np.log(3) + np.log(2 * np.pi * 2.25)


def test_mahalanobis_by_hand():
    #   mean (3, -1); variances 4 and 0.25 and no covariance, divided by n
    rows = np.array([[1, -1.5], [5, -1.5], [1, -0.5], [5, -0.5]], np.float32)
    model, *_ = fitted(method_of("gaussian", standardise=False), rows)
    found = model.novelty(torch.tensor([[3.0, -1.0], [7.0, -1.0], [3.0, 0.0], [5.0, -2.0]]))
    torch.testing.assert_close(found, torch.tensor([0.0, 4.0, 4.0, 1.0 + 4.0]), rtol=1e-5, atol=1e-5)


def test_pca_by_hand():
    #   all along (3, 4) / 5 through (1, 1)
    rows = np.array([[1 + 3 * t, 1 + 4 * t] for t in (-2, -1, 0, 1, 2)], np.float32)
    model, *_ = fitted(method_of("pca", standardise=False), rows)
    x = torch.tensor([[4.0, 5.0], [1 - 4 * 0.7, 1 + 3 * 0.7]])
    torch.testing.assert_close(model.novelty(x), torch.tensor([0.0, 25 * 0.49]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.encode(x).mean[:, 0].abs(), torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(model.decode(model.encode(x).mean).mean, torch.tensor([[4.0, 5.0], [1, 1]]))


def test_pca_errors_are_in_the_units_of_x_where_decoded():
    model, *_ = fitted(method_of("pca"), samples())
    x = torch.from_numpy(samples(7, seed=1))
    residual = (x - model.decode(model.encode(x).mean).mean) / torch.from_numpy(samples().std(0))
    torch.testing.assert_close(model.novelty(x), residual.square().sum(1), rtol=1e-3, atol=1e-4)


def test_local_outlier_factor_of_an_even_row_is_one():
    rows = np.arange(40, dtype=np.float32)[:, None]
    model, *_ = fitted(method_of("local_outlier_factor", standardise=False, neighbours=2), rows)
    #   between two of them, each reaches 1; 42 is 3 and 4 beside the last two
    inside, outside = model.novelty(torch.tensor([[20.0], [42.0]])).tolist()
    assert inside == pytest.approx(1.0, rel=1e-5)
    #   lrd(42): 1 / 3.5; of 39: neighbours 38, 37 reach 1 and 2: 1 / 1.5; of 38: 37 and 39, reach 1 and 2
    assert outside == pytest.approx(3.5 / 1.5, rel=1e-4)


def test_the_boundary_of_a_one_class_svm_keeps_nu_outside():
    model, _, rows = fitted(method_of("ocsvm", samples=240, nu=0.2), samples())
    scores = model.novelty(torch.from_numpy(samples()))
    outside = (scores > 1e-4).float().mean().item()
    assert outside <= 0.2 <= model.facts()["support_vectors"] / len(rows) < 0.4
    assert outside > 0.1


@pytest.mark.parametrize(("seed", "folds"), [(0, 5), (1, 3)])
def test_the_bandwidth_is_the_one_that_comparing_densities_finds(seed, folds):
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.neighbors import KernelDensity

    method = method_of("kde", folds=folds)
    model, _, rows = fitted(method, samples(seed=seed))
    shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
    grid = {"bandwidth": method.settings.grid}
    found = GridSearchCV(KernelDensity(), grid, cv=KFold(folds)).fit(shuffled).best_params_["bandwidth"]
    assert grid["bandwidth"][0] < found < grid["bandwidth"][-1]
    assert model.bandwidth.item() == pytest.approx(found, rel=1e-6)


def test_the_papers_bandwidths():
    grid = KDESettings().grid
    assert (len(grid), grid[0], grid[-1]) == (10, 2**0.5, 2**5)
    np.testing.assert_allclose(np.diff(np.log2(grid)), 0.5)


def test_a_bandwidth_at_the_end_of_those_compared_is_told():
    method = method_of("kde", lowest_log2=3.0)
    model, *_ = fitted(method, samples())
    assert model.facts() == {"bandwidth": 8.0, "bandwidth_at_edge": True}
    assert "lower lowest_log2" in model.words()
    assert not fitted(method_of("kde", bandwidth=8.0), samples())[0].facts()["bandwidth_at_edge"]


def test_usual_depths():
    #   c(3) = 2 H(2) - 4/3 with H(2) taken as ln 2 + 0.5772
    assert usual_depth(np.array([1, 2, 3])).tolist() == pytest.approx(
        [0, 1, 2 * (0.693147 + 0.577216) - 4 / 3]
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_a_value_that_never_changes(name):
    x = samples()
    x[:, 2] = 0.1
    model, *_ = fitted(method_of(name), x)
    assert torch.isfinite(model.novelty(torch.from_numpy(x))).all()
    assert model.novelty(torch.from_numpy(x)).std() > 0


def test_an_ellipsoid_around_one_point_is_refused():
    with pytest.raises(SettingsError, match="minimum_volume_ellipsoid: The covariance matrix of the support"):
        fitted(method_of("minimum_volume_ellipsoid"), np.full((40, CHANNELS), 2.5, np.float32))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "minimum_volume_ellipsoid"])
def test_samples_that_are_all_the_same_are_told(name):
    x = np.full((40, CHANNELS), 2.5, np.float32)
    method = method_of(name)
    model, *_ = fitted(method, x)
    said = method.assess(model, cache_of(x), cache_of(x), torch.Generator().manual_seed(0))
    assert said["collapsed"]
    assert said["verdict"].endswith("fit on samples that differ, or change method_settings")
    json.dumps(said, allow_nan=False)


@pytest.mark.parametrize("name", SETTINGS)
def test_fewer_normals_than_are_asked_for(name):
    x = samples(17)
    method = method_of(name)
    model, _, rows = fitted(method, x)
    assert len(rows) == int(model.fitted_on) == 17
    said = method.assess(model, cache_of(x), cache_of(samples(9, seed=1)), torch.Generator().manual_seed(0))
    assert "fitted on 17 of 17 training samples; mean score" in said["verdict"]
    assert not said["collapsed"]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "minimum_volume_ellipsoid"])
@pytest.mark.parametrize("reduce", [False, True])
def test_more_values_than_samples(name, reduce):
    x = samples(25, channels=90)
    settings = {"reduce": 0.9} if reduce and hasattr(method_of(name).settings, "reduce") else {}
    model, estimator, rows = fitted(method_of(name, **settings), x, torch.float64)
    y = torch.from_numpy(samples(8, channels=90, seed=1)).double()
    assert torch.isfinite(model.novelty(y)).all()
    if settings:
        assert rows.shape[1] == model.preparation.width < 25
        np.testing.assert_allclose(
            model.novelty(y).numpy(), expected(name, model, estimator, rows, y), rtol=1e-8, atol=1e-9
        )


def test_components_keep_the_share_that_scikit_learn_keeps():
    from sklearn.decomposition import PCA

    x = samples(60, channels=30)
    _, _, rows = fitted(method_of("gaussian", reduce=0.97, standardise=False), x)
    there = PCA(0.97).fit(x)
    assert rows.shape == (60, there.n_components_)
    np.testing.assert_allclose(np.abs(rows), np.abs(there.transform(x)), rtol=1e-3, atol=1e-3)
    _, _, rows = fitted(method_of("gaussian", reduce=0.97, components=2), x)
    assert rows.shape == (60, 2)


def test_an_ellipsoid_needs_more_samples_than_dimensions():
    words = r"20 of 25 samples span no ellipsoid in 90 dimensions; set method_settings\.reduce"
    with pytest.raises(SettingsError, match=words):
        fitted(method_of("minimum_volume_ellipsoid"), samples(25, channels=90))


def test_an_ellipsoid_leaves_outliers_out():
    x = samples()
    x[:20] += 300
    robust, *_ = fitted(method_of("minimum_volume_ellipsoid"), x)
    plain, *_ = fitted(method_of("gaussian"), x)
    odd, normal = torch.from_numpy(x[:20]), torch.from_numpy(x[20:])
    assert (robust.novelty(odd).min() / robust.novelty(normal).max()) > 20
    assert (plain.novelty(odd).min() / plain.novelty(normal).max()) < 20


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_drawn_evenly_over_scans_and_the_verdict_says_how_many(name):
    cache = VoxelCache(CHANNELS)
    for i, n in enumerate((300, 60, 120)):
        cache.append(str(i), samples(n, seed=i))
    method = method_of(name, samples=90)
    model = method.build((CHANNELS,))
    asked = []
    take = cache.take
    cache.take = lambda rows: asked.append(rows) or take(rows)
    method.start(model, cache, torch.Generator().manual_seed(0))
    assert [int(((asked[0] >= a) & (asked[0] < b)).sum()) for a, b in ((0, 300), (300, 360), (360, 480))] == [
        30
    ] * 3
    said = method.assess(model, cache, cache_of(samples(50, seed=8)), torch.Generator().manual_seed(0))
    assert "fitted on 90 of 480 training samples, evenly over scans; mean score" in said["verdict"]
    assert (said["fitted_on"], said["training_samples"]) == (90, 480)
    held_out = model.novelty(torch.from_numpy(samples(50, seed=8))).double().mean().item()
    assert said["held_out_score"] == pytest.approx(held_out, rel=1e-5)


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_follow_their_gradient(name):
    model, *_ = fitted(method_of(name), samples(), torch.float64)
    x = torch.from_numpy(samples(3, seed=1)).double().requires_grad_()
    if name == "isolation_forest":  # It has steps, and between them no slope.
        assert not model.novelty(x).requires_grad
        return
    (slope,) = torch.autograd.grad(model.novelty(x).sum(), x)
    step = torch.tensor([1.0, -2, 0.5, 1, -1, 3]).double() * 1e-5
    difference = (model.novelty(x + step) - model.novelty(x - step)).detach() / 2
    torch.testing.assert_close((slope * step).sum(1), difference, rtol=1e-4, atol=1e-9)


def test_chunks_change_nothing(monkeypatch):
    from mednovelty.methods.shallow import base

    x = torch.from_numpy(samples(23, seed=3))
    models = [fitted(method_of(name), samples())[0] for name in SETTINGS]
    whole = [model.novelty(x) for model in models]
    monkeypatch.setattr(base, "NUMBERS_A_CHUNK", 700)
    for model, scores in zip(models, whole, strict=True):
        torch.testing.assert_close(model.novelty(x), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("pca", {"samples": 0}, "samples must be from 1 to 1,000,000, got 0"),
        ("pca", {"variance": 1.5}, "variance must be above 0 and at most 1, got 1.5"),
        ("kde", {"reduce": 0.0}, "reduce must be above 0 and at most 1, got 0.0"),
        ("kde", {"bandwidth": -1.0}, "bandwidth must be a finite number above 0, got -1.0"),
        ("kde", {"lowest_log2": 6.0}, "lowest_log2 must be at most highest_log2"),
        ("kde", {"folds": 1}, "folds must be from 2 to 100, got 1"),
        ("ocsvm", {"nu": 0.0}, "nu must be above 0 and at most 1, got 0.0"),
        ("ocsvm", {"gamma": "auto"}, "gamma must be a finite number above 0, or 'scale', got 'auto'"),
        ("kernel_pca", {"kernel_components": 0}, "kernel_components must be from 1 to 4,096, got 0"),
        ("isolation_forest", {"trees": 10**6}, "trees must be from 1 to 10,000, got 1000000"),
        ("gaussian", {"covariance": "full"}, "covariance='full' is neither 'empirical' nor 'ledoit_wolf'"),
        ("gaussian_mixture", {"regularisation": -1.0}, "regularisation must be finite and not below 0"),
        ("local_outlier_factor", {"neighbours": 0}, "neighbours must be from 1 to 1,000, got 0"),
    ],
)
def test_settings_are_checked(name, settings, words):
    with pytest.raises(SettingsError) as error:
        plugin("methods", name).Settings(**settings)
    assert words in str(error.value)


def test_a_single_sample_is_refused():
    with pytest.raises(SettingsError, match="kde: 1 training samples are too few; give 2"):
        fitted(method_of("kde"), samples(1))


@pytest.mark.parametrize("name", ["gaussian", "gaussian_mixture", "minimum_volume_ellipsoid"])
def test_covariances_of_whole_images_are_refused(name):
    with pytest.raises(SettingsError, match=r"covariances of 32,768 values .* set method_settings\.reduce"):
        method_of(name).build((2, 128, 128))
    with torch.device("meta"):
        assert method_of(name, reduce=0.95).build((2, 128, 128)).channels == 32768


def test_a_shrunken_covariance_counts_every_direction():
    x = samples(25, channels=90)
    assert fitted(method_of("gaussian"), x)[0].facts() == {"rank": 24}
    assert fitted(method_of("gaussian", covariance="ledoit_wolf"), x)[0].facts() == {"rank": 90}


def test_counts_and_trees_from_a_file_are_checked():
    model, *_ = fitted(method_of("kde"), samples())
    state = model.state_dict() | {"kept": torch.tensor(151)}
    with pytest.raises(SettingsError, match="kept is 151, where there is room for 150"):
        method_of("kde").build((CHANNELS,)).load_state_dict(state)
    model, *_ = fitted(method_of("isolation_forest"), samples())
    state = model.state_dict()
    state["left"] = state["left"].clone().fill_(128)
    with pytest.raises(SettingsError, match="left of a tree points to 128, where there are 128"):
        method_of("isolation_forest").build((CHANNELS,)).load_state_dict(state)


def test_what_a_library_warns_of_is_one_line_of_the_log(caplog):
    import warnings

    with told_in_words("kde"):
        warnings.warn("two\n lines", UserWarning, stacklevel=1)
    assert caplog.messages == ["kde: two lines"]


def test_training_is_refused():
    method = method_of("ocsvm")
    model, *_ = fitted(method, samples())
    with pytest.raises(SettingsError, match="ocsvm: is fitted at once and takes no step of training"):
        method.loss(model, torch.zeros(2, CHANNELS), 1, torch.Generator())


def test_classes_beside_the_values_are_not_seen():
    x = samples()
    cache = VoxelCache(CHANNELS + 1, shape=(CHANNELS,))
    cache.append("scan", np.column_stack([x, np.arange(len(x)) % 3]))
    plain = VoxelCache(CHANNELS)
    plain.append("scan", x)
    method = method_of("gaussian")
    models = [method.build((CHANNELS,)) for _ in range(2)]
    for model, normals in zip(models, (cache, plain), strict=True):
        method.start(model, normals, torch.Generator().manual_seed(1))
    assert all(
        torch.equal(value, models[1].state_dict()[key]) for key, value in models[0].state_dict().items()
    )
    rows = torch.from_numpy(cache.take(np.arange(5)))
    assert method.validate(models[0], [rows], torch.Generator()) == method.validate(
        models[1], [rows[:, :CHANNELS]], torch.Generator()
    )


def test_defaults_say_what_images_need():
    voxels, images = (plugin("methods", "kde").defaults(images=images) for images in (False, True))
    assert voxels["train"]["max_epochs"] == images["train"]["max_epochs"] == 0
    assert images["method_settings"] == {"samples": 2000, "standardise": False, "reduce": 0.95}
    assert replace(KDESettings(), **voxels["method_settings"]).grid[0] == 2**-4
    assert plugin("methods", "pca").defaults(images=True)["scores"] == ["outlier_score", "rec_error"]

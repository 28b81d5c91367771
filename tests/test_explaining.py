"""Relevance: conservation, equality with what is explained, derivatives against finite differences."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

from mednovelty.batch import Batch
from mednovelty.errors import ScanError, SettingsError, UnknownPluginError
from mednovelty.explaining import ExplainSettings, explain
from mednovelty.explaining.derivatives import check_differentiable, differentiable, gradient
from mednovelty.explaining.explain import check_explainable
from mednovelty.explaining.layers import Rules, Weighted, propagated, steps_of
from mednovelty.explaining.neuralised import soft_minimum
from mednovelty.methods.autoencoder import AEMethod, AutoencoderSettings
from mednovelty.methods.hypersphere import DeepSVDDMethod, DeepSVDDSettings, HSCMethod, HSCSettings
from mednovelty.methods.input_gradients import NoisyCopies
from mednovelty.methods.shallow.points import squared_distances
from mednovelty.nn.one_class import ConvolutionalEncoder, DenseNetwork, Units
from mednovelty.plugins import names, plugin
from mednovelty.reference import Reference
from mednovelty.scoring import Scoring
from mednovelty.testing.models import LinearGaussianVAE
from mednovelty.voxel_cache import VoxelCache

D = 6


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normals(n=150, seed=0):
    random = np.random.default_rng(seed)
    plane = random.normal(size=(n, 2)) @ np.random.default_rng(7).normal(size=(2, D))
    return (3 + plane * np.linspace(0.5, 4, D) + 0.2 * random.normal(size=(n, D))).astype(np.float32)


def shallow(name, **settings):
    kind = plugin("methods", name)
    method = kind(kind.Settings(**settings))
    model = method.build((D,))
    method.start(model, VoxelCache.from_array(normals()), torch.Generator().manual_seed(1))
    return model.double().eval()


def lively(network, seed=3):
    """Give a network weights, and batch norms something that they have seen, all drawn."""
    generator = torch.Generator().manual_seed(seed)
    network.double().eval()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            size = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5
            with torch.no_grad():
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
                if name == "weight" and parameter.dim() == 1:
                    parameter.abs_().add_(0.3)
        if getattr(module, "running_var", None) is not None:
            module.running_mean.copy_(0.4 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return network


NETWORKS = {
    "dense": lambda biases: DenseNetwork(5, (8, 7), 3, Units(0.1, biases)),
    "convolutional": lambda biases: ConvolutionalEncoder((2, 8, 12), (3, 4), 5, Units(0.1, biases)),
    "windows": lambda biases: ConvolutionalEncoder((2, 4, 8, 12), (3, 4), 5, Units(0.2, biases)),
}
WIDTHS = {"dense": 5, "convolutional": 192, "windows": 768}


def of_network(name, biases, rules, seed=4):
    """Return a network's inputs, the relevance of its outputs, and that of its inputs."""
    network = lively(NETWORKS[name](biases))
    x = drawn(7, WIDTHS[name], seed=seed)
    with torch.no_grad():
        relevance = network(x).square()
        return x, relevance, propagated(steps_of(network), x, relevance, rules)


class TestLayers:
    @pytest.mark.parametrize("biases", [False, True])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_steps_with_folded_norms_are_the_network(self, name, biases):
        network = lively(NETWORKS[name](biases))
        x = drawn(7, WIDTHS[name])
        out = x
        for step in steps_of(network):
            out = step.forward(out)
        torch.testing.assert_close(out, network(x))

    @pytest.mark.parametrize("first", ["gamma", "squared_weights"])
    @pytest.mark.parametrize("biases", [False, True])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_relevance_adds_up_where_biases_spread_what_they_get(self, name, biases, first):
        _, outputs, inputs = of_network(name, biases, Rules(first=first))
        torch.testing.assert_close(inputs.sum(1), outputs.sum(1))

    @pytest.mark.parametrize("name", NETWORKS)
    def test_biases_that_keep_what_they_get_leak(self, name):
        # A batch norm's running mean is a bias even where layers have none.
        _, outputs, inputs = of_network(name, False, Rules(biases="keep"))
        assert ((inputs.sum(1) - outputs.sum(1)).abs() > 1e-3 * outputs.sum(1)).all()

    @pytest.mark.parametrize("biases", ["spread", "keep"])
    def test_without_biases_and_gamma_it_is_gradient_times_input(self, biases):
        network = nn.Sequential(nn.Linear(5, 8, bias=False), nn.LeakyReLU(0.3), nn.Linear(8, 1, bias=False))
        lively(network)
        x = drawn(7, 5).requires_grad_()
        out = network(x)
        (slope,) = torch.autograd.grad(out.sum(), x)
        found = propagated(steps_of(network), x.detach(), out.detach(), Rules(gamma=0, biases=biases))
        torch.testing.assert_close(found, (slope * x).detach())

    def test_one_layer_by_hand(self):
        # z = 2 * 3 + 1 * -4 + 1 = 3 > 0. p: 6 * 1.5 = 9, -4, bias 1.5; their sum 6.5.
        step = Weighted(nn.functional.linear, torch.tensor([[3.0, -4.0]]), torch.tensor([1.0]))
        a, relevance = torch.tensor([[2.0, 1.0]]), torch.tensor([[13.0]])
        kept = step.back(a, relevance, Rules(0.5, biases="keep"), first=False)
        torch.testing.assert_close(kept, torch.tensor([[18.0, -8.0]]))
        # The bias' 3 go 9 : 4.
        spread = step.back(a, relevance, Rules(0.5), first=False)
        torch.testing.assert_close(spread, torch.tensor([[18 + 27 / 13, -8 + 12 / 13]]))
        # With b = -9, z = -7: what is negative counts more.
        below = Weighted(nn.functional.linear, torch.tensor([[3.0, -4.0]]), torch.tensor([-9.0]))
        # p: 6, -6, bias -13.5; sum -13.5.
        kept = below.back(a, relevance, Rules(0.5, biases="keep"), first=False)
        torch.testing.assert_close(kept, torch.tensor([[-6 * 13 / 13.5, 6 * 13 / 13.5]]))
        squared = step.back(a, relevance, Rules(first="squared_weights"), first=True)
        torch.testing.assert_close(squared, torch.tensor([[13 * 9 / 25, 13 * 16 / 25]]))

    def test_max_pooling_gives_to_the_largest(self):
        x = torch.tensor([[[[1.0, 5.0], [2.0, -3.0]]]])
        found = propagated(steps_of(nn.MaxPool2d(2)), x, torch.tensor([[[[7.0]]]]), Rules())
        torch.testing.assert_close(found, torch.tensor([[[[0.0, 7.0], [0.0, 0.0]]]]))

    def test_layers_without_a_rule_are_refused_in_words(self):
        with pytest.raises(SettingsError, match="no rule is known for relevance through Tanh; use method="):
            steps_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
        with pytest.raises(SettingsError, match="batch norm that follows no layer with weights"):
            steps_of(nn.BatchNorm1d(3))

    def test_rules_are_checked(self):
        with pytest.raises(SettingsError, match="gamma must be at least 0 and finite, got -1"):
            Rules(gamma=-1)
        with pytest.raises(SettingsError, match="biases must be 'spread' or 'keep', got 'drop'"):
            Rules(biases="drop")


class TestKDE:
    @pytest.mark.parametrize("settings", [{}, {"standardise": False}])
    def test_neuralised_it_is_minus_the_log_of_the_density(self, settings):
        model = shallow("kde", samples=60, bandwidth=0.7, **settings)
        x = torch.from_numpy(normals(9, seed=2)).double()
        found = explain(model, x, "outlier_score")
        z, points = model.preparation(x).numpy(), model.normals().numpy()
        kernels = [multivariate_normal(p, 0.7**2).logpdf(z) for p in points]
        expected = -(logsumexp(kernels, axis=0) - np.log(len(points)))
        np.testing.assert_allclose(found.score, expected, rtol=1e-7)
        torch.testing.assert_close(found.score, model.novelty(x))

    @pytest.mark.parametrize("settings", [{}, {"reduce": 0.8}])
    def test_relevance_and_the_kernels_height_add_up(self, settings):
        model = shallow("kde", samples=60, bandwidth=0.7, **settings)
        x = torch.from_numpy(normals(9, seed=2)).double()
        found = explain(model, x, "outlier_score")
        assert found.rule.startswith("lrp: soft minimum")
        assert (found.values >= 0).all()
        assert (found.values.sum(1) > 0.1).all()
        torch.testing.assert_close(found.unassigned, torch.zeros(9).double(), atol=1e-9, rtol=0)
        torch.testing.assert_close(found.score, model.novelty(x))

    def test_by_hand(self):
        # d = (1 + 4) / 8 and (9 + 16) / 8 with h = 2.
        pooled, values, own = soft_minimum(
            drawn(1, 2) * 0, torch.tensor([[1.0, 2], [3, 4]]).double(), torch.tensor(2.0)
        )
        weights = np.exp(-np.array([5, 25]) / 8)
        f = -np.log(weights.mean())
        p = weights / weights.sum()
        assert pooled.item() == pytest.approx(f)
        expected = f * (p[0] * np.array([1, 4]) / 5 + p[1] * np.array([9, 16]) / 25)
        np.testing.assert_allclose(values[0], expected)
        assert own.item() == 0

    def test_on_a_normal_its_own_kernel_has_no_direction_by_hand(self):
        # d = 0 and (9 + 16) / 8 with h = 2: the first kernel's p f goes to no input.
        points = torch.tensor([[1.0, 2], [4, 6]]).double()
        _, values, own = soft_minimum(points[:1], points, torch.tensor(2.0))
        weights = np.exp(-np.array([0, 25]) / 8)
        f, p = -np.log(weights.mean()), weights / weights.sum()
        assert own.item() == pytest.approx(f * p[0])
        np.testing.assert_allclose(values[0], f * p[1] * np.array([9, 16]) / 25)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("settings", [{}, {"standardise": False}, {"reduce": 0.8}])
    def test_training_samples_conserve_too(self, settings, dtype):
        model = shallow("kde", samples=60, bandwidth=0.7, **settings).to(dtype)
        x = torch.from_numpy(normals()).to(dtype)
        found = explain(model, x, "outlier_score")
        assert found.conserves
        torch.testing.assert_close(found.unassigned, torch.zeros(150).to(dtype), atol=2e-5, rtol=0)
        height = found.constant.min()
        own = found.constant - height
        # 60 of 150 are normals of the density; most have a kernel of their own, and others near.
        assert (own > 0.1).sum() == 60
        assert (own == 0).sum() == 90
        assert (found.values >= 0).all()
        assert "own kernel" in found.rule

    @given(st.floats(0.05, 20), st.integers(1, 40), st.floats(-1e3, 1e3))
    def test_it_adds_up_for_any_bandwidth_number_and_place(self, bandwidth, count, shift):
        points, x = drawn(count, 5) + shift, drawn(4, 5, seed=1, scale=3) + shift
        pooled, values, own = soft_minimum(x, points, torch.tensor(bandwidth).double())
        assert (own == 0).all()
        torch.testing.assert_close(values.sum(1), pooled, rtol=1e-7, atol=1e-9)
        exact = -(torch.logsumexp(squared_distances(x, points) / (-2 * bandwidth**2), 1) - np.log(count))
        torch.testing.assert_close(pooled, exact, rtol=1e-6, atol=1e-6)

    def test_what_stands_out_in_one_value_is_told_by_it(self):
        model = shallow("kde", samples=100, bandwidth=0.5)
        x = torch.from_numpy(normals(5)).double()
        x[:, 4] += 30
        found = explain(model, x, "outlier_score")
        assert (found.values.argmax(1) == 4).all()

    def test_a_copy_of_the_only_normal_has_nothing_to_tell(self):
        point = drawn(1, 3)
        pooled, values, own = soft_minimum(point, point, torch.tensor(0.5).double())
        assert pooled.item() == own.item() == pytest.approx(0)
        assert (values == 0).all()


def hypersphere(method=DeepSVDDMethod, settings=None, shape=(D,), seed=2):
    method = method(settings or DeepSVDDSettings(hidden=(8, 7), latent=4, pretrain_epochs=0))
    model = lively(method.build(shape), seed)
    model.shift.copy_(drawn(*model.shift.shape, seed=8))
    model.spread.copy_(1.5 + drawn(*model.spread.shape, seed=9).abs())
    if not isinstance(method, HSCMethod):
        model.centre.copy_(drawn(model.latents, seed=10))
    return model


class TestHypersphere:
    @pytest.mark.parametrize("shape", [(D,), (2, 8, 12), (2, 4, 8, 12)])
    def test_relevance_adds_up_to_the_squared_distance(self, shape):
        settings = DeepSVDDSettings(latent=4, pretrain_epochs=0)
        model = hypersphere(settings=settings, shape=shape)
        x = drawn(5, *shape)
        found = explain(model, x, "hypersphere")
        assert found.values.shape == x.shape
        assert found.rule == "lrp: distance from the centre, gamma rule 0.25, biases spread what they get"
        expected = (model.encode(x.flatten(1)).mean - model.centre).square().sum(1).detach()
        torch.testing.assert_close(found.score, expected)
        assert (expected > 0.1).all()
        torch.testing.assert_close(found.values.flatten(1).sum(1), expected)

    def test_what_biases_keep_is_told(self):
        settings = ExplainSettings(rules=Rules(biases="keep"))
        found = explain(hypersphere(), drawn(5, D), "hypersphere", settings=settings)
        torch.testing.assert_close(found.values.sum(1) + found.unassigned, found.score)
        assert (found.unassigned.abs() > 1e-3).all()

    def test_a_soft_boundary_is_a_constant(self):
        model = hypersphere()
        model.soft = True
        model.radius.fill_(1.5)
        found = explain(model, drawn(5, D), "hypersphere")
        torch.testing.assert_close(found.constant, torch.full((5,), -2.25).double())
        torch.testing.assert_close(found.unassigned, torch.zeros(5).double(), atol=1e-9, rtol=0)

    @pytest.mark.parametrize("norm", ["pseudo_huber", "l1", "l2", "squared"])
    def test_hypersphere_classification_adds_up_for_each_norm(self, norm):
        settings = HSCSettings(hidden=(8, 7), latent=4, pretrain_epochs=0, norm=norm)
        model = hypersphere(HSCMethod, settings)
        x = drawn(5, D)
        found = explain(model, x, "hypersphere")
        torch.testing.assert_close(found.score, model.distances(model.encode(x).mean).detach())
        torch.testing.assert_close(found.values.sum(1), found.score)

    def test_a_linear_network_by_hand(self):
        # (z_j - c_j)^2 with z = W x: x_i w_ji (z_j - c_j) of it is x_i's, and -c_j (z_j - c_j) the centre's.
        model = hypersphere()
        model.standardises = False
        model.encoder = lively(nn.Linear(D, 4, bias=False))
        x, weight, centre = drawn(5, D), model.encoder.weight.detach(), model.centre
        how = ExplainSettings(rules=Rules(gamma=0, biases="keep"))
        found = explain(model, x, "hypersphere", settings=how)
        offset = x @ weight.T - centre
        torch.testing.assert_close(found.values, x * (offset @ weight))
        torch.testing.assert_close(found.unassigned, -(offset * centre).sum(1))

    def test_inputs_that_the_network_does_not_see_have_none(self):
        model = hypersphere()
        with torch.no_grad():
            model.encoder.layers[0].weight[:, 2] = 0
        found = explain(model, drawn(5, D), "hypersphere")
        assert (found.values[:, 2] == 0).all()
        assert (found.values[:, 3] != 0).all()


class TestReconstruction:
    @pytest.mark.parametrize("score", ["reconstruction_error", "rec_error"])
    def test_errors_of_inputs_add_up(self, score):
        method = AEMethod(AutoencoderSettings(network="lenet", filters=(3, 4, 5), latent=6))
        model = lively(method.build((2, 8, 12)))
        x = drawn(3, 2, 8, 12)
        found = explain(model, x, score)
        expected = (x.flatten(1) - model.decode(model.encode(x.flatten(1)).mean).mean).square().detach()
        torch.testing.assert_close(found.values.flatten(1), expected)
        torch.testing.assert_close(found.score, expected.sum(1))
        assert found.rule == "lrp: squared error of each input"

    def test_of_principal_components(self):
        model = shallow("pca", variance=0.7)
        x = torch.from_numpy(normals(9, seed=2)).double()
        found = explain(model, x, "outlier_score")
        torch.testing.assert_close(found.values.sum(1), model.novelty(x))

    def test_of_the_nearest_normal(self):
        model, points = LinearGaussianVAE(D, 3), torch.from_numpy(normals(40))
        scoring = scoring_of(model, {"input": points})
        x = torch.from_numpy(normals(7, seed=3))
        found = explain(scoring, x, "nearest_normal")
        nearest = torch.cdist(x.double(), points.double()).argmin(1)
        torch.testing.assert_close(found.values, (x - points[nearest]).square())


def scoring_of(model, parts=None):
    return Scoring(model, Reference(parts or {}, "exact", 40), draws=4, seed=3, batch_voxels=64)


def double(model):
    for name, value in list(vars(model).items()):
        if isinstance(value, torch.Tensor):
            setattr(model, name, value.double())
    model.parameters = lambda: iter([model.encoder])
    return model


DIFFERENTIABLE = [
    *("fcdd", "fcdd_map"),
    *("decoder_stochastic_error", "decoder_stochastic_error_min", "encoder_stochastic_error"),
    *("encoder_stochastic_error_min", "encoder_stochastic_likelihood", "encoder_stochastic_likelihood_min"),
    *("fully_stochastic_error", "fully_stochastic_error_min", "hypersphere", "negative_elbo"),
    *("negative_elbo_at_mean", "negative_elbo_min", "outlier_score", "raw_signed", "rec_error"),
    *("rec_error_bright", "rec_error_dark", "rec_likelihood", "rec_signed", "rec_term"),
    *("reconstruction_error", "reconstruction_likelihood", "synthetic_lesions", "synthetic_lesions_map"),
    "vae_regularizer",
]


def every_score():
    return [name for name in names("scorers") if "is_b0" not in plugin("scorers", name).needs]


@cache
def complete_scoring():
    """Return a scoring of a model that offers everything, with every part of the normals."""
    model, points = double(LinearGaussianVAE(D, 3)), drawn(40, D, seed=5)
    parts = {part for name in every_score() for part in plugin("scorers", name).reference_parts}
    return scoring_of(model, Reference.of(model, points, parts).parts)


class TestDerivatives:
    @pytest.mark.parametrize("name", DIFFERENTIABLE)
    def test_of_a_score_they_are_finite_differences(self, name):
        scoring, x = complete_scoring(), drawn(3, D, seed=6)
        score = differentiable(scoring, name)
        found, value = gradient(score, x, name)
        assert value.shape == (3,)
        assert (found.abs().sum(1) > 1e-3).all()
        step = 1e-5
        for number in range(D):
            by = step * torch.eye(D).double()[number]
            with torch.no_grad():
                expected = (score(x + by) - score(x - by)) / (2 * step)
            torch.testing.assert_close(found[:, number], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", sorted(set(every_score()) - set(DIFFERENTIABLE)))
    def test_of_any_other_score_they_are_refused_in_words(self, name):
        # Unless all that a score is made of is differentiated, a derivative would be wrong without a word.
        scoring, x = complete_scoring(), drawn(3, D, seed=6)
        with pytest.raises(SettingsError, match=f"^{name}: cannot be explained: it "):
            gradient(differentiable(scoring, name), x, name)

    def test_gradient_times_input_of_a_square(self):
        # s = ||x||^2: x * 2x. With a baseline b: (x - b) 2x.
        x = drawn(5, D)
        scoring = scoring_of(double(LinearGaussianVAE(D, 3)))
        found = explain(scoring, x, "outlier_score", "gradient_x_input")
        torch.testing.assert_close(found.values, 2 * x.square())
        assert found.rule == "gradient x input"
        assert not found.conserves
        moved = explain(scoring, x, "outlier_score", settings=ExplainSettings(baseline=0.5))
        torch.testing.assert_close(moved.values, 2 * x * (x - 0.5))

    def test_smoothgrad_of_a_square_is_its_gradient(self):
        # The gradient is linear and the noise comes in pairs.
        x = drawn(5, D)
        settings = ExplainSettings(copies=NoisyCopies(count=6, sigma=0.7, seed=1))
        found = explain(
            scoring_of(double(LinearGaussianVAE(D, 3))), x, "outlier_score", "smoothgrad", settings
        )
        torch.testing.assert_close(found.values, 2 * x)
        torch.testing.assert_close(found.score, x.square().sum(1))
        assert "6 noisy copies, sigma 0.7" in found.rule

    def test_smoothgrad_averages_over_kinks(self):
        noise = NoisyCopies(count=50, sigma=2.0, seed=1)
        model = hypersphere()
        x = drawn(4, D)
        score = differentiable(scoring_of(model), "hypersphere")
        found = explain(model, x, "hypersphere", "smoothgrad", ExplainSettings(copies=noise))
        each = [gradient(score, x + e, "")[0] for e in noise.noise(D).double()]
        torch.testing.assert_close(found.values, torch.stack(each).mean(0))

    def test_a_sample_alone_has_the_same_relevance(self):
        model, x = hypersphere(), drawn(5, D)
        for method in ("lrp", "gradient_x_input", "smoothgrad"):
            together = explain(model, x, "hypersphere", method).values
            alone = torch.cat([explain(model, row[None], "hypersphere", method).values for row in x])
            torch.testing.assert_close(together, alone)

    def test_nothing_is_changed(self):
        model, x = hypersphere(), drawn(5, D)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        explain(model, x, "hypersphere", "gradient_x_input")
        explain(model, x, "hypersphere")
        assert torch.equal(x, drawn(5, D))
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


class TestRefusals:
    def test_trees_have_no_derivatives(self):
        model = shallow("isolation_forest", trees=5, tree_samples=32)
        with pytest.raises(SettingsError, match=r"^outlier_score: cannot be explained: it does not depend"):
            explain(model, normals(3), "outlier_score")

    def test_trees_are_refused_before_any_sample_is_seen(self):
        model = shallow("isolation_forest", trees=5, tree_samples=32)
        with pytest.raises(SettingsError, match=r"^outlier_score: cannot be explained: it does not depend"):
            check_explainable(scoring_of(model), "outlier_score")
        check_explainable(scoring_of(shallow("local_outlier_factor", samples=60)), "outlier_score")

    def test_a_derivative_that_is_not_finite_is_the_samples_fault(self):
        root = lambda x: x.abs().sum(1).sqrt()  # noqa: E731
        x = drawn(5, D)
        x[[1, 3]] = 0
        words = r"^root: cannot be explained here: it has no finite derivative at 2 of 5 samples"
        with pytest.raises(ScanError, match=words) as caught:
            gradient(root, x, "root")
        assert caught.value.code == "relevance.derivative"
        check_differentiable(root, x, "root")

    def test_copies_of_normals_have_local_outlier_factors_with_a_derivative(self):
        model = shallow("local_outlier_factor", samples=60).float()
        slope, _ = gradient(model.of, model.normals().clone(), "outlier_score")
        assert (slope != 0).any()

    def test_scores_made_of_derivatives(self):
        with pytest.raises(SettingsError, match="combi: cannot be explained: it is made of derivatives"):
            explain(LinearGaussianVAE(D, 3), normals(3), "combi")

    def test_no_network_for_lrp(self):
        model = shallow("ocsvm", samples=60)
        with pytest.raises(SettingsError, match="outlier_score of OneClassSVM is not written as a network"):
            explain(model, normals(3), "outlier_score", "lrp")

    def test_names(self):
        model = hypersphere()
        with pytest.raises(UnknownPluginError, match="no scorer is called 'hyperspher'; did you mean"):
            explain(model, drawn(3, D), "hyperspher")
        with pytest.raises(SettingsError, match="method must be one of auto, lrp, gradient_x_input, smooth"):
            explain(model, drawn(3, D), "hypersphere", "saliency")
        with pytest.raises(SettingsError, match="hypersphere: needs a hypersphere around normal latents"):
            explain(shallow("kde", samples=30), normals(3), "hypersphere")

    def test_samples(self):
        model = hypersphere()
        with pytest.raises(SettingsError, match=r"samples must be \(B, 6\) or \(B, 6\), got \(3, 5\)"):
            explain(model, drawn(3, 5), "hypersphere")
        bad = drawn(3, D)
        bad[1, 2] = float("nan")
        with pytest.raises(SettingsError, match="1 of 3 samples have values that are not finite"):
            explain(model, bad, "hypersphere")
        settings = ExplainSettings(baseline=(1.0, 2.0))
        with pytest.raises(SettingsError, match="baseline must be one number or 6, got 2"):
            explain(model, drawn(3, D), "hypersphere", "gradient_x_input", settings)


def test_half_precision_is_explained_in_full():
    scoring = replace(scoring_of(hypersphere(shape=(2, 8, 12)).float()), precision="bfloat16")
    x = drawn(3, 2, 8, 12).float()
    found = explain(scoring, x, "hypersphere")
    full = explain(replace(scoring, precision="float32"), x, "hypersphere")
    assert torch.equal(found.values, full.values)


def test_the_score_is_the_detectors():
    scoring = complete_scoring()
    x = drawn(5, D)
    scorer = scoring.scorers(["negative_elbo"])["negative_elbo"]
    plain = scorer.score(Batch(x, noise=scoring._noise()))
    torch.testing.assert_close(explain(scoring, x, "negative_elbo").score, plain)

"""FCDD on the first layers of VGG-11 from a file: read, frozen, given what ImageNet's images look like."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_images import scan_of
from torch import nn

from mednovelty.detector import Detector
from mednovelty.errors import SettingsError
from mednovelty.methods.fcdd import FCDDMethod, FCDDSettings
from mednovelty.methods.fcdd_model import FCDDModel
from mednovelty.model_folder import fit_settings
from mednovelty.nn.fully_convolutional import FullyConvolutional
from mednovelty.nn.pretrained import FROZEN, as_imagenet, check_file, read_into
from mednovelty.nn.receptive_field import ReceptiveField
from mednovelty.voxel_cache import VoxelCache

SHAPE = (1, 24, 32)
PLAN = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


def vgg11_bn():
    """torchvision's ``vgg11_bn().features``, written down independently of our own layers."""
    layers, channels = [], 3
    for filters in PLAN:
        if filters == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            continue
        layers += [nn.Conv2d(channels, filters, kernel_size=3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(5)
    network = vgg11_bn()
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return network.eval()


@pytest.fixture(scope="module")
def weights(teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg11_bn.safetensors"
    tensors = {f"features.{name}": value for name, value in teacher.state_dict().items()}
    save_file(tensors | {"classifier.6.bias": torch.ones(1000)}, path)
    return path


def rows(n=12, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(40, 6, (n, int(np.prod(shape)))).astype(np.float32)


def started(weights, shape=SHAPE):
    method = FCDDMethod(FCDDSettings(weights=str(weights), anomalies="lesions"))
    model = method.build(shape)
    method.start(model, VoxelCache.from_array(rows(shape=shape)), torch.Generator().manual_seed(0))
    return method, model


def test_features_are_those_of_the_network_in_the_file(teacher, weights):
    _, model = started(weights)
    # 2.58 standard deviations, of 6, from the mean are a normal's percentiles 0.5 and 99.5.
    assert model.low.item() == pytest.approx(40 - 2.576 * 6, abs=0.8)
    assert model.high.item() == pytest.approx(40 + 2.576 * 6, abs=0.8)
    x = torch.from_numpy(rows(3, seed=1))
    grey = (x.view(3, *SHAPE) - model.low) / (model.high - model.low)
    expected = [(grey - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    with torch.no_grad():
        features = teacher[:21](torch.cat(expected, 1))
        last = model.network.layers[-1]
        output = nn.functional.conv2d(features, last.weight, last.bias)[:, 0]
        maps = model.eval().heatmap(x)
    assert maps.shape == (3, 3, 4)
    assert maps.std() > 1e-3
    torch.testing.assert_close(maps, (output.square() + 1).sqrt() - 1, rtol=1e-4, atol=1e-5)


def test_the_receptive_field_is_that_of_the_thesis(weights):
    _, model = started(weights)
    assert model.network.fields == (ReceptiveField(62, 8, 3.5),) * 2
    assert model.sigma == 12


def test_layers_up_to_the_third_pooling_stay_as_they_are(weights):
    method, model = started(weights)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    groups = method.parameter_groups(model)
    optimiser = torch.optim.Adam([{"params": group["params"]} for group in groups], lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    for epoch in (1, 2):
        model.train()
        optimiser.zero_grad()
        method.loss(model, torch.from_numpy(rows(8)), epoch, generator)["loss"].backward()
        optimiser.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    frozen = tuple(f"network.layers.{i}." for i in range(FROZEN))
    assert FROZEN == 15
    assert isinstance(model.network.layers[FROZEN - 1], nn.MaxPool2d)
    assert not [name for name in changed if name.startswith(frozen)]
    # The norms after them learn, and so do the convolutions.
    for name in ("15.weight", "16.running_mean", "18.weight", "19.running_var", "21.weight"):
        assert f"network.layers.{name}" in changed
    assert not {"low", "high"} & changed


def test_contrasts_are_brought_to_imagenets_range_each_by_its_own_ends():
    images = torch.tensor([[[[2.0]], [[10.0]], [[-1.0]]]])
    low, high = torch.tensor([0.0, 10.0, -3.0]), torch.tensor([4.0, 20.0, 1.0])
    found = as_imagenet(images, low, high).flatten().tolist()
    assert found == pytest.approx([(0.5 - 0.485) / 0.229, -0.456 / 0.224, (0.5 - 0.406) / 0.225])
    grey = as_imagenet(torch.full((1, 1, 2, 2), 3.0), torch.tensor([1.0]), torch.tensor([2.0]))
    assert grey[0, :, 1, 1].tolist() == pytest.approx(
        [(2 - 0.485) / 0.229, (2 - 0.456) / 0.224, (2 - 0.406) / 0.225]
    )


def test_a_detector_fits_saves_and_scores_without_the_file(weights, tmp_path):
    scans = [scan_of(n).take(np.array([0]), None) for n in (1, 2, 3)]
    tree = {
        "method": "fcdd",
        "method_settings": {"weights": str(weights), "anomalies": "lesions"},
        "view_settings": {"size": [24, 24]},
        "train": {"max_epochs": 1, "batch_size": 16},
    }
    copied = tmp_path / "copied.safetensors"
    copied.write_bytes(weights.read_bytes())
    tree["method_settings"]["weights"] = str(copied)
    settings = fit_settings(tree, where="test", recipe="slices")
    detector = Detector.fit(scans, recipe="slices", settings=settings).save(tmp_path / "model")
    copied.unlink()
    again = Detector.load(tmp_path / "model")
    unseen = scan_of(7).take(np.array([0]), None)
    maps = [each.score(unseen, "fcdd_map")["fcdd_map"].data for each in (detector, again)]
    np.testing.assert_array_equal(*maps)
    assert maps[0].std() > 0


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "variance", "text", "pth", "absent"])
def test_files_that_do_not_fit_are_refused(weights, teacher, tmp_path, change):
    tensors = {f"features.{name}": value.clone() for name, value in teacher.state_dict().items()}
    path, words = tmp_path / "other.safetensors", ""
    if change == "missing":
        # VGG-11 without batch norms has a pooling where they are.
        del tensors["features.1.weight"]
        words = "is not VGG-11 with batch norms: it has no features.1.weight"
    elif change == "shape":
        tensors["features.4.weight"] = torch.zeros(128, 64, 5, 5)
        words = r"features.4.weight has shape \(128, 64, 5, 5\), not \(128, 64, 3, 3\)"
    elif change == "nan":
        tensors["features.18.bias"][3] = float("nan")
        words = "features.18.bias has numbers that are not finite"
    elif change == "variance":
        tensors["features.9.running_var"][0] = -1.0
        words = "features.9.running_var has numbers that are not finite, or variances below 0"
    if change == "text":
        path.write_text("no weights")
        words = "is no file of safetensors .* convert torchvision's file once"
    elif change == "pth":
        path = tmp_path / "vgg11_bn.pth"
        path.write_bytes(weights.read_bytes())
        words = "may run code when they are read; convert torchvision's file once"
    elif change == "absent":
        words = "other.safetensors: cannot be read: No such file"
    else:
        save_file(tensors, path)
    layers = FullyConvolutional((3, 24, 24), "vgg11").layers
    with pytest.raises(SettingsError, match=words):
        read_into(path, layers)
    if change not in ("nan", "variance"):
        with pytest.raises(SettingsError, match=words):
            check_file(path, layers)


def test_samples_and_settings_that_do_not_fit_are_refused(weights):
    settings = FCDDSettings(weights=str(weights))
    for shape in ((2, 24, 24), (1, 24, 24, 24), (7,)):
        with pytest.raises(SettingsError, match="are not slices of 1 or 3 contrasts"):
            FCDDModel(shape, settings)
    assert FCDDModel((3, 24, 24), settings).network.layers[0].in_channels == 3
    with pytest.raises(SettingsError, match="too small for the network vgg11"):
        FCDDModel((1, 6, 6), settings)
    for other in ({"network": "cnn28"}, {"filters": (4, 4)}):
        with pytest.raises(SettingsError, match="are those of vgg11 with its own filters"):
            FCDDSettings(weights=str(weights), **other)
    method, flat = FCDDMethod(settings), VoxelCache.from_array(np.ones((6, 24 * 32), np.float32))
    model = method.build(SHAPE)
    with pytest.raises(SettingsError, match="a contrast of the training samples does not vary"):
        method.start(model, flat, torch.Generator().manual_seed(0))


def test_a_file_that_is_not_there_is_told_before_scans_are_read(tmp_path):
    tree = {"method": "fcdd", "method_settings": {"weights": str(tmp_path / "none.safetensors")}}
    settings = fit_settings(tree, where="test", recipe="slices")

    def scans():
        raise AssertionError("a scan was read")
        yield

    with pytest.raises(SettingsError, match=r"none\.safetensors: cannot be read"):
        Detector.fit(scans(), recipe="slices", settings=settings)


def test_without_a_file_all_layers_are_trained():
    network = FullyConvolutional(SHAPE, "vgg11").train()
    assert all(weight.requires_grad for weight in network.parameters())
    assert all(layer.training for layer in network.layers)

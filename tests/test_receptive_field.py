"""What outputs see: by hand, by gradient, for the thesis' networks; and maps drawn back from there."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv_transpose2d

from mednovelty.errors import SettingsError
from mednovelty.nn.fully_convolutional import LAYOUTS, FullyConvolutional, filters_of, layout_for
from mednovelty.nn.receptive_field import ReceptiveField, output_sides, receptive_fields, upsampled

# Size, stride and centre of the first field; the first, second and fourth are those of the thesis.
FIELDS = {
    "cnn28": ReceptiveField(16, 4, 1.5),
    "cnn32": ReceptiveField(22, 4, 1.5),
    "cnn128": ReceptiveField(34, 4, 1.5),
    "vgg11": ReceptiveField(62, 8, 3.5),
}


def network(name, shape, filters=None):
    filters = [2 + i for i in range(len(filters_of(name)))] if filters is None else filters
    made = FullyConvolutional(shape, name, filters)
    made.initialise(torch.Generator().manual_seed(3))
    return made.eval()


def seen(made, shape, place):
    """Return which inputs have a derivative in one output for any of some images, ``(*space)``."""
    support = torch.zeros(shape[1:], dtype=torch.bool)
    # Of a maximum only one input has a derivative.
    for seed in range(25):
        x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        made(x)[(slice(None), *place)].sum().backward()
        support |= (x.grad != 0).any(0).any(0)
    return support


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_the_networks_analytically(name):
    made = network(name, (2, 67, 72))
    assert made.fields == (FIELDS[name], FIELDS[name])
    assert network(name, (2, 24, 33, 40)).fields == (FIELDS[name],) * 3
    x = torch.zeros(2, 2, 67, 72)
    assert made(x).shape[1:] == made.sides == tuple(side // FIELDS[name].stride for side in (67, 72))


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_the_networks_by_the_gradient_of_one_output(name):
    field = FIELDS[name]
    shape = (2, 88, 81) if field.size > 40 else (2, 53, 60)
    made, place = network(name, shape), (5, 4)
    rows = seen(made, shape, place)
    for along, at, side in ((rows.any(1), place[0], shape[1]), (rows.any(0), place[1], shape[2])):
        centre = field.first + at * field.stride
        first, last = centre - (field.size - 1) / 2, centre + (field.size - 1) / 2
        expected = [i for i in range(side) if first <= i <= last]
        assert along.nonzero().flatten().tolist() == expected


def test_a_window_sees_along_three_axes():
    shape, made = (2, 19, 20, 25), network("cnn28", (2, 19, 20, 25))
    support = seen(made, shape, (2, 2, 3))
    # Centres 9.5, 9.5 and 13.5, 7.5 to both sides.
    spans = [support.movedim(axis, 0).flatten(1).any(1).nonzero().flatten() for axis in range(3)]
    assert [(s[0].item(), s[-1].item()) for s in spans] == [(2, 17), (2, 17), (6, 21)]


def test_fields_layer_by_layer_with_strides_paddings_and_dilations():
    layers = [
        nn.Conv2d(1, 1, (5, 3), stride=(2, 1), padding=(0, 1)),
        nn.ReLU(),
        nn.Conv2d(1, 1, 3, dilation=2),
    ]
    # First axis: 5 wide about 2, then 3 taps 4 apart: 13 about 6; second: 3 about 0, taps 2 apart: 7 about 2.
    assert receptive_fields(layers, 2) == (ReceptiveField(13, 2, 6.0), ReceptiveField(7, 1, 2.0))
    found = nn.Sequential(*layers)(torch.zeros(1, 1, 22, 17)).shape[2:]
    assert output_sides(layers, (22, 17)) == tuple(found)
    with pytest.raises(TypeError, match="what a Linear sees"):
        receptive_fields([nn.Linear(2, 3)], 2)


def test_the_thesis_networks_have_its_numbers_of_weights():
    counts = {("cnn28", 1, 28): 413_441, ("cnn32", 3, 32): 1_185_281, ("vgg11", 3, 224): 4_504_833}
    for (name, channels, side), count in counts.items():
        assert layout_for((side, side)) == name
        made = FullyConvolutional((channels, side, side), name)
        assert sum(weight.numel() for weight in made.parameters()) == count
    assert [
        FullyConvolutional((1, n, n), name).sides[0]
        for name, n in (("cnn28", 28), ("cnn32", 32), ("vgg11", 224))
    ] == [7, 8, 28]


def test_one_output_becomes_a_gaussian_about_the_centre_of_its_field():
    fields, space, sigma = (ReceptiveField(16, 4, 1.5),) * 2, (41, 46), 2.3
    maps = torch.zeros(1, 10, 11, dtype=torch.float64)
    maps[0, 4, 6] = 3
    found = upsampled(maps, fields, space, sigma)[0]
    centre = 1.5 + 4 * 4, 1.5 + 4 * 6
    assert centre == (17.5, 25.5)
    total = found.sum()
    for axis in range(2):
        place = torch.arange(space[axis], dtype=torch.float64)
        along = found.sum(1 - axis)
        assert (along * place).sum() / total == pytest.approx(centre[axis], abs=1e-9)
        outside = (place - centre[axis]).abs() > 7.5
        assert not along[outside].any()
        assert (along[~outside] > 0).all()
        assert found[17, 25].item() == pytest.approx(found.max().item())
        assert found[18, 26].item() == pytest.approx(found.max().item())
    # Nearly a Gaussian: sigma is over half a stride, so that the sum of all of them hardly ripples.
    ratio = math.exp(-(2.5**2 - 0.5**2) / (2 * sigma**2))
    assert found[17, 25 - 2] / found[17, 25] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("sigma", [0.05, 1.2, 12.0])
def test_it_is_the_transposed_convolution_over_that_of_ones(sigma):
    # Field 5, stride 3, the first centred on 1: whole pixels, so that the kernel can be written down.
    field, maps = ReceptiveField(5, 3, 1.0), torch.rand(2, 6, 7, dtype=torch.float64)
    away = torch.arange(-2, 3, dtype=torch.float64)
    along = torch.exp(-0.5 * (away / sigma).square())
    kernel = (along[:, None] * along)[None, None]

    def spread(values):
        # The kernel's corner is 2 before the first centre, which is at 1: one pixel is cut off.
        return conv_transpose2d(values[:, None], kernel, stride=3)[:, 0, 1 : 1 + 18, 1 : 1 + 21]

    found = upsampled(maps, (field, field), (18, 21), sigma)
    expected = spread(maps) / spread(torch.ones_like(maps))
    known = torch.isfinite(expected)
    assert known.any()
    torch.testing.assert_close(found[known], expected[known])
    assert torch.isfinite(found).all()


@given(
    name=st.sampled_from(sorted(LAYOUTS)),
    space=st.lists(st.integers(8, 70), min_size=2, max_size=3),
    sigma=st.floats(0.01, 50),
    value=st.floats(0.01, 100),
)
def test_a_constant_map_stays_constant_whatever_the_sides(name, space, sigma, value):
    fields = (FIELDS[name],) * len(space)
    maps = torch.full((2, *(side // FIELDS[name].stride for side in space)), value)
    found = upsampled(maps, fields, space, sigma)
    assert found.shape == (2, *space)
    torch.testing.assert_close(found, torch.full_like(found, value))


def test_what_no_output_sees_takes_the_nearest():
    field = ReceptiveField(2, 2, 0.5)
    maps = torch.tensor([[5.0, 7.0, 9.0]])
    # Outputs see pixels 0-1, 2-3 and 4-5; of 8 pixels the last two are seen by none.
    assert upsampled(maps, (field,), (8,), 1.0).tolist() == [[5, 5, 7, 7, 9, 9, 9, 9]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="not 0 axes of space; choose deep_svdd or hsc"):
        FullyConvolutional((7,), "cnn28")
    with pytest.raises(SettingsError, match=r"image of 9 x 7 is too small for the network vgg11, .* by 8"):
        FullyConvolutional((2, 9, 7), "vgg11")
    with pytest.raises(SettingsError, match=r"filters=\(3, 4, 5\): the network cnn28 has 2 convolutions"):
        FullyConvolutional((2, 9, 12), "cnn28", (3, 4, 5))

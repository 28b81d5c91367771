"""The null of a score as a curve: of a calibration's table, and read off a map and its p-values."""

import numpy as np
import pytest

from mednovelty.calibrate.null import Null
from mednovelty.explaining.null_curve import NullCurve, that_gave


def test_a_curve_by_hand():
    # Of 1, 2, 2, 4: three of four are 2 or higher, one is above 2.
    curve = NullCurve.of(Null.of([1.0, 2.0, 2.0, 4.0]))
    assert curve.share(np.array([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])).tolist() == [
        1, 1, 0.75, 0.75, 0.25, 0.25, 0,
    ]  # fmt: skip
    assert curve.p(3.0) == pytest.approx(2 / 5)
    assert curve.quantile(0.75) == 4.0
    assert not curve.ends_early


def test_what_is_read_off_a_map_is_the_table_at_its_values():
    rng = np.random.default_rng(0)
    null = Null.of(rng.normal(size=3000))
    scores = rng.normal(size=(5, 7, 9)).astype(np.float32)
    stored = np.power(10.0, -(-np.log10(null.p(scores))).astype(np.float32).astype(np.float64))
    curve = NullCurve.read_off(scores, stored, null.n)
    np.testing.assert_allclose(
        curve.share(scores.ravel()), NullCurve.of(null).share(scores.ravel()), atol=1e-9
    )
    assert curve.ends_early
    assert curve.share(np.float32(9.0)) == 0


def test_of_several_regions_the_one_that_gave_the_p_value():
    every, region = (NullCurve.of(Null.of(np.arange(100.0) + shift)) for shift in (0, 40))
    assert that_gave([every, region], 60.0, every.p(60.0)) is every
    assert that_gave([every, region], 60.0, region.p(60.0)) is region
    assert that_gave([], 60.0, 0.1) is None
    assert that_gave([every], 60.0, None) is None

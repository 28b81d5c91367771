"""A coreset is what choosing the farthest vector, one by one, gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mednovelty import coreset
from mednovelty.coreset import k_center


def one_by_one(vectors, count):
    """Choose as the definition says, in float64."""
    vectors = vectors.astype(np.float64)
    chosen = [int(((vectors - vectors.mean(0)) ** 2).sum(1).argmin())]
    while len(chosen) < count:
        distance = ((vectors[:, None] - vectors[chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(distance.argmax()))
    return np.sort(chosen)


def radius(vectors, chosen):
    return ((vectors[:, None] - vectors[chosen]) ** 2).sum(-1).min(1).max()


@given(n=st.integers(3, 300), d=st.integers(1, 7), share=st.floats(0.01, 0.9), seed=st.integers(0, 99))
@pytest.mark.parametrize("pool", [1, 5, 64])
def test_it_is_the_greedy_choice(pool, n, d, share, seed):
    vectors = np.random.default_rng(seed).normal(3, 2, (n, d)).astype(np.float32)
    count = max(1, int(share * n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "POOL", pool)
        patch.setattr(coreset, "ROWS", 37)
        chosen = k_center(vectors, count)
    assert chosen.tolist() == one_by_one(vectors, count).tolist()


def test_it_covers_better_than_chance():
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (3000, 4)).astype(np.float32)
    drawn = rng.choice(3000, 100, replace=False)
    assert radius(vectors, k_center(vectors, 100)) < 0.5 * radius(vectors, drawn)


def test_all_when_there_are_no_more_and_copies_are_no_trouble():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    assert k_center(vectors, 99).tolist() == list(range(12))
    chosen = k_center(vectors, 5)
    assert len(set(chosen.tolist())) == 5
    assert {tuple(row) for row in vectors[chosen]} == {tuple(row) for row in np.eye(3)}


def test_progress_is_told():
    vectors = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    told = []
    k_center(vectors, 60, advance=told.append)
    assert told == sorted(told)
    assert told[-1] == 60


def test_a_reference_can_be_a_coreset():
    from dataclasses import replace

    from cohorts import FAST

    import mednovelty as mn
    from mednovelty.errors import SettingsError

    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 5)).astype(np.float32)
    x[7] += 40  # far from all others: chance would miss it, a coreset cannot
    scans = np.arange(600) // 200
    few = replace(FAST, scores=("nearest_normal",), reference_bytes=20 * 5 * 4)
    for seed in range(3):
        drawn = mn.fit_voxels(x, scans=scans, seed=seed, settings=few)
        covered = mn.fit_voxels(x, scans=scans, seed=seed, settings=replace(few, reference="coreset"))
        assert len(drawn.reference) <= 20
        assert len(covered.reference) == 20
        held_out = {scan.id for scan in drawn.scans if scan.role == "validation"}
        if "0" not in held_out:
            assert covered.score_voxels(x[[7]])["nearest_normal"] == 0
            assert drawn.score_voxels(x[[7]])["nearest_normal"] > 100
    with pytest.raises(SettingsError, match="neither 'even' nor 'coreset'"):
        replace(few, reference="core")

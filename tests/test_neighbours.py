"""Every installed neighbour search finds what comparing every pair finds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.neighbours import exact
from mednovelty.plugins import names, plugin
from mednovelty.testing.contracts import check_neighbours
from mednovelty.testing.models import random_samples


@pytest.mark.parametrize("name", names("neighbours"))
@given(n=st.integers(4, 60), queries=st.integers(2, 40), k=st.integers(1, 4), far=st.sampled_from([0, 100]))
def test_neighbours_equal_brute_force(name, n, queries, k, far):
    vectors = random_samples(n, 6, seed=1) + far
    check_neighbours(plugin("neighbours", name), vectors, random_samples(queries, 6, seed=2) + far, k)


@pytest.mark.parametrize("name", names("neighbours"))
def test_a_copy_is_at_distance_zero(name):
    vectors = random_samples(50, 33, seed=0) * 3 + 1000
    distances, indices = plugin("neighbours", name)(vectors).search(vectors[7:19], 1)
    assert distances.flatten().tolist() == [0.0] * 12
    assert indices.flatten().tolist() == list(range(7, 19))


def test_chunks_change_nothing(monkeypatch):
    vectors, queries = random_samples(31, 5, seed=1), random_samples(17, 5, seed=2)
    whole = exact.ExactNeighbours(vectors).search(queries, 3)
    monkeypatch.setattr(exact, "DISTANCES_A_CHUNK", 2 * 31)
    parts = exact.ExactNeighbours(vectors).search(queries, 3)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_ties_are_all_as_near():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [5.0, 5.0]])
    distances, indices = exact.ExactNeighbours(vectors).search(torch.zeros(2, 2), 3)
    assert distances.tolist() == [[1.0, 1.0, 1.0]] * 2
    assert [sorted(row) for row in indices.tolist()] == [[0, 1, 2]] * 2

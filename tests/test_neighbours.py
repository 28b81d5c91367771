"""Every installed neighbour search finds what comparing every pair finds."""

import pytest
import torch
from clouds import cloud
from hypothesis import given
from hypothesis import strategies as st

from mednovelty.neighbours import exact
from mednovelty.neighbours.choice import is_approximate
from mednovelty.neighbours.exact import ExactNeighbours
from mednovelty.neighbours.quality import HeldOut
from mednovelty.plugins import names, plugin
from mednovelty.testing.contracts import check_neighbours, check_tuned_neighbours
from mednovelty.testing.models import random_samples

NAMES = names("neighbours")
EXACT = [name for name in NAMES if not is_approximate(plugin("neighbours", name))]
APPROXIMATE = [name for name in NAMES if name not in EXACT]


def test_both_kinds_are_there():
    assert {"exact", "faiss_flat", "fused"} <= set(EXACT)
    assert {"inverted_lists", "faiss_ivf", "faiss_hnsw"} <= set(APPROXIMATE)


@pytest.mark.parametrize("name", EXACT)
@given(n=st.integers(4, 60), queries=st.integers(2, 40), k=st.integers(1, 4), far=st.sampled_from([0, 100]))
def test_neighbours_equal_brute_force(name, n, queries, k, far):
    vectors = random_samples(n, 6, seed=1) + far
    check_neighbours(plugin("neighbours", name), vectors, random_samples(queries, 6, seed=2) + far, k)


@pytest.mark.parametrize("name", APPROXIMATE)
@given(n=st.integers(4, 300), queries=st.integers(2, 40), k=st.integers(1, 4), far=st.sampled_from([0, 100]))
def test_approximate_neighbours_are_as_far_as_they_say(name, n, queries, k, far):
    vectors = random_samples(n, 6, seed=1) + far
    check_neighbours(plugin("neighbours", name), vectors, random_samples(queries, 6, seed=2) + far, k, 0.8)


@pytest.mark.parametrize("name", APPROXIMATE)
def test_a_recall_is_reached_measured_and_kept(name):
    check_tuned_neighbours(plugin("neighbours", name), cloud(3001, seed=1), cloud(701, seed=2), 0.99)


@pytest.mark.parametrize("name", APPROXIMATE)
@pytest.mark.parametrize("k", [3, 10])
def test_a_recall_is_one_of_all_neighbours_asked_for(name, k):
    family, vectors, sample = plugin("neighbours", name), cloud(3001, seed=1), cloud(701, seed=2)
    check_tuned_neighbours(family, vectors, sample, 0.99, k)
    every = torch.cdist(sample.double(), vectors.double()).argsort(1)[:, :k]
    index, _ = family.tuned(vectors, HeldOut.of(ExactNeighbours(vectors), sample, k), 0.99, 7)
    found = index.search(sample, k)[1]
    hits = [len(set(one) & set(other)) for one, other in zip(found.tolist(), every.tolist(), strict=True)]
    assert sum(hits) >= 0.985 * every.numel()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "queries", "k"), [(1, 3, 1), (1, 1, 1), (5, 1, 5), (37, 4, 37), (7, 0, 2)])
def test_small_sizes(name, n, queries, k):
    # Fewer vectors in the lists visited than neighbours asked for: the search falls back on an exact one.
    check_neighbours(plugin("neighbours", name), cloud(n, seed=1), cloud(queries, seed=2), k, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_is_at_distance_zero(name):
    vectors = random_samples(50, 33, seed=0) * 3 + 1000
    distances, indices = plugin("neighbours", name)(vectors).search(vectors[7:19], 1)
    assert distances.flatten().tolist() == [0.0] * 12
    assert indices.flatten().tolist() == list(range(7, 19))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "faiss_flat"])
def test_an_answer_is_the_same_in_any_company(name):
    # faiss_flat ranks by products whose rounding depends on how many queries there are.
    index, queries = plugin("neighbours", name)(cloud(3000, 33, seed=1)), cloud(150, 33, seed=2)
    together = index.search(queries, 1)
    for part in (1, 7, 64):
        alone = [index.search(rows, 1) for rows in queries.split(part)]
        for j in (0, 1):
            assert torch.equal(together[j], torch.cat([answer[j] for answer in alone]))


@pytest.mark.parametrize(("block_queries", "block_vectors"), [(5, 7), (17, 31), (4, 1), (100, 30)])
@pytest.mark.parametrize("k", [1, 3])
def test_chunks_change_nothing(monkeypatch, block_queries, block_vectors, k):
    vectors, queries = random_samples(31, 5, seed=1), random_samples(17, 5, seed=2)
    whole = exact.ExactNeighbours(vectors).search(queries, k)
    monkeypatch.setattr(exact, "DISTANCES_A_CHUNK", 2 * 31)
    monkeypatch.setattr(exact, "BLOCK_QUERIES", block_queries)
    monkeypatch.setattr(exact, "BLOCK_VECTORS", block_vectors)
    parts = exact.ExactNeighbours(vectors).search(queries, k)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])


def test_ties_are_all_as_near():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [5.0, 5.0]])
    distances, indices = exact.ExactNeighbours(vectors).search(torch.zeros(2, 2), 3)
    assert distances.tolist() == [[1.0, 1.0, 1.0]] * 2
    assert [sorted(row) for row in indices.tolist()] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("block", [2, 3, 1024])
def test_of_equal_vectors_the_first_is_found(monkeypatch, block):
    monkeypatch.setattr(exact, "BLOCK_VECTORS", block)
    # The mean is 0 and all numbers are small and whole: no rounding can part the equals.
    vectors = torch.tensor([[9.0, 1.0], [-8.0, -3.0], [2.0, 0.0], [-3.0, 1.0], [2.0, 0.0], [-2.0, 1.0]])
    assert exact.ExactNeighbours(vectors).search(torch.tensor([[2.0, 1.0]]), 1)[1].tolist() == [[2]]


def test_the_centre_is_the_mean_of_all_rows(monkeypatch):
    vectors = cloud(41)
    whole = exact.centre_of(vectors)
    monkeypatch.setattr(exact, "MEAN_ROWS", 7)
    torch.testing.assert_close(whole, vectors.double().mean(0).float())
    torch.testing.assert_close(whole, exact.centre_of(vectors))


@pytest.mark.parametrize(("count", "k"), [(3000, 2), (4096, 3), (5003, 4), (70001, 10), (2000, 2)])
def test_the_lowest_are_found_by_segments(count, k):
    numbers = torch.randn(7, count, generator=torch.Generator().manual_seed(count))
    # The last segment is shorter than the others, and several of the lowest lie in one.
    numbers[0, -k:] = -torch.arange(10.0, 10 + k)
    numbers[1, 5 : 5 + k] = -torch.arange(10.0, 10 + k)
    found = exact.lowest(numbers, k).sort(1).values
    assert torch.equal(found, numbers.topk(k, largest=False).indices.sort(1).values)


def test_one_neighbour_that_is_missing_counts_once():
    truth = HeldOut(torch.zeros(2, 1), torch.tensor([[1.0, 2, 3, 4], [1, 1, 1, 1]]), torch.zeros(2, 4))
    found = torch.tensor([[2.0, 3, 4, 5], [1, 1, 1, 1]])
    assert truth.recall(found) == 7 / 8

"""Pooling against its slow, obvious twins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.deep.pooling import EPSILON, pooled, rmac, squares


def maps(height: int = 7, width: int = 5) -> torch.Tensor:
    values = np.random.default_rng(height * width).normal(size=(3, 4, height, width))
    return torch.tensor(values, dtype=torch.float32)


def places(channel: np.ndarray, pool: str, p: float) -> float:
    values = [float(value) for value in channel.ravel()]
    if pool == "max":
        return max(values)
    if pool == "gem":
        return (sum(max(value, EPSILON) ** p for value in values) / len(values)) ** (1 / p)
    return sum(values) / len(values)


@pytest.mark.parametrize(("pool", "p"), [("avg", 1.0), ("max", 1.0), ("gem", 1.0), ("gem", 3.0), ("gem", 2.5)])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (2, 9)])
def test_each_channel_is_reduced_over_its_places(pool: str, p: float, size: tuple[int, int]) -> None:
    features = maps(*size)
    wanted = [[places(channel, pool, p) for channel in image] for image in features.numpy()]
    np.testing.assert_allclose(pooled("toy", features, pool, p, 0), wanted, rtol=1e-4, atol=1e-5)
    tokens = torch.cat([torch.full((3, 2, 4), 9.0), features.flatten(2).transpose(1, 2)], dim=1)
    np.testing.assert_allclose(pooled("toy", tokens, pool, p, 2), wanted, rtol=1e-4, atol=1e-5)


def test_gem_lies_between_average_and_maximum() -> None:
    features = maps().abs()
    ladder = [pooled("toy", features, "gem", p, 0) for p in (1.0, 2.0, 4.0, 16.0)]
    assert all((lower <= upper + 1e-6).all() for lower, upper in itertools.pairwise(ladder))
    assert (ladder[-1] <= features.amax((2, 3)) + 1e-6).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_gem_of_a_large_power_is_the_maximum_and_does_not_overflow(size: float) -> None:
    features = maps().abs() * size
    found = pooled("toy", features, "gem", 1e6, 0)
    np.testing.assert_allclose(found, features.amax((2, 3)), rtol=1e-4)
    assert pooled("toy", features, "gem", 50.0, 0).isfinite().all()


def test_the_class_token_is_the_first() -> None:
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    assert pooled("toy", tokens, "token", 1, 1).tolist() == [[0, 1, 2, 3], [12, 13, 14, 15]]


@pytest.mark.parametrize(
    ("features", "pool", "prefix", "sentence"),
    [
        (torch.zeros(1, 3, 2, 2), "token", 1, "pool=token needs a class token"),
        (torch.zeros(1, 3, 2), "token", 0, "pool=token needs a class token"),
        (torch.zeros(1, 3, 2), "rmac", 0, "pool=rmac needs a feature map"),
        (torch.zeros(1, 3), "gem", 0, "pool=gem needs a feature map or tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(features: torch.Tensor, pool: str, prefix: int, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        pooled("toy", features, pool, 3, prefix)


def test_rmac_adds_up_unit_vectors_of_squares() -> None:
    features = maps(6, 6)
    wanted = np.zeros((3, 4))
    for top, left, side in squares(6, 6):
        for row in range(3):
            best = [features[row, c, top : top + side, left : left + side].max().item() for c in range(4)]
            wanted[row] += np.array(best) / np.linalg.norm(best)
    np.testing.assert_allclose(rmac(features), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (7, 7), (7, 12), (12, 7), (6, 48)])
def test_squares_lie_within_the_map_and_cover_it(size: tuple[int, int]) -> None:
    seen = np.zeros(size, bool)
    for top, left, side in squares(*size):
        assert side >= 1
        assert 0 <= top <= top + side <= size[0]
        assert 0 <= left <= left + side <= size[1]
        seen[top : top + side, left : left + side] = True
    if max(size) <= 3 * min(size):
        assert seen.all()


def test_a_square_map_has_the_squares_of_the_paper() -> None:
    """One, four and nine of them; the sides are 1, 2/3 and 1/2 of the map's."""
    sides = [side for _, _, side in squares(12, 12)]
    assert sides == [12] + [8] * 4 + [6] * 9

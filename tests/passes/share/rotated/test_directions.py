"""Directions of the stream: orthonormal, leading, ones for ones, and the features where all stay."""

import numpy as np
import pytest
from graphwright.passes.share.rotated.directions import directions
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 20), st.integers(2, 20), st.integers(0, 99), st.booleans(), st.booleans())
def test_columns_are_orthonormal_and_ones_go_to_ones(size, width, seed, scaled, mean):
    width, rng = min(size, width), np.random.default_rng(seed)
    rows = rng.normal(size=(rng.integers(1, 40), size)) * rng.uniform(0.1, 3, size)
    scale = rng.uniform(0.2, 2, size) if scaled else None
    found = directions(rows.T @ rows, width, scale, mean)
    np.testing.assert_allclose(found.T @ found, np.eye(width), atol=1e-10)
    if mean:
        np.testing.assert_allclose(
            found.T @ np.ones(size) / size**0.5, np.full(width, width**-0.5), atol=1e-10
        )


@pytest.mark.parametrize("scaled", [False, True])
def test_the_space_is_that_of_the_leading_directions(scaled):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 12)) * np.linspace(1, 4, 12)
    found = directions(rows.T @ rows, 5, rng.uniform(0.5, 2, 12) if scaled else None, mean=False)
    leading = np.linalg.svd(rows, full_matrices=False)[2][:5]
    np.testing.assert_allclose(found @ found.T, leading.T @ leading, atol=1e-10)


def test_with_a_mean_the_others_are_those_of_centred_rows():
    rows = np.random.default_rng(0).normal(size=(50, 12)) * np.linspace(1, 4, 12)
    found = directions(rows.T @ rows, 5, None, mean=True)
    leading = np.linalg.svd(rows - rows.mean(1, keepdims=True), full_matrices=False)[2][:4]
    expected = leading.T @ leading + np.full((12, 12), 1 / 12)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-10)


@pytest.mark.parametrize("mean", [False, True])
def test_all_features_under_a_scale_are_those_features_in_another_order(mean):
    rng = np.random.default_rng(0)
    rows, scale = rng.normal(size=(50, 12)), rng.permutation(np.linspace(0.5, 2, 12))
    found = directions(rows.T @ rows, 12, scale, mean)
    np.testing.assert_allclose(np.sort(np.abs(found), axis=0)[:-1], 0, atol=1e-10)
    np.testing.assert_allclose(found.T @ scale, np.sort(scale), atol=1e-10)

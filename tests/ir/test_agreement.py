"""What "agree" means: every kind of difference is one, and what says nothing is called so."""

import ml_dtypes
import numpy as np
import pytest
from graphwright.ir.agreement import (
    cosine,
    difference,
    mismatch,
    moved_share,
    scaled_distance,
    smallest_cosine,
    unverified,
    vacuity,
)

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
NAN, INF = np.float32(np.nan), np.float32(np.inf)


def with_one(value, array=X):
    changed = array.copy()
    changed[1, 2] = value
    return changed


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        (X, X.astype(np.float64), "became float64"),
        (X, X[:2], "has shape (2, 4)"),
        (X, with_one(NAN), "has 1 NaN where there was none"),
        (with_one(NAN), X, "has numbers in 1 places where there was NaN"),
        (np.full_like(X, NAN), X, "has numbers in 12 places"),
        (with_one(-INF), with_one(INF), "has 1 infinities"),
        (X, with_one(INF), "has 1 infinities"),
        (with_one(INF), with_one(np.float32(3e38)), "has 1 infinities"),
        (np.array([2**53]), np.array([2**53 + 1]), "has 1 of 1 values"),
        (np.array([True, False]), np.array([True, True]), "has 1 of 2 values"),
        (X.astype(ml_dtypes.bfloat16), with_one(NAN).astype(ml_dtypes.bfloat16), "has 1 NaN"),
    ],
)
def test_what_no_tolerance_excuses(expected, actual, words):
    assert mismatch(expected, actual).startswith(words)
    assert difference(expected, actual, 1e9).startswith(words)
    assert scaled_distance(expected, actual) == np.inf


@pytest.mark.parametrize("same", [X, with_one(NAN), with_one(-INF), np.full_like(X, NAN), np.arange(4)])
def test_an_output_agrees_with_itself(same):
    assert difference(same, same.copy(), 0.0) == ""
    assert moved_share([same], [same.copy()]) == 0
    assert smallest_cosine(same, same.copy()) == pytest.approx(1, abs=1e-12)


def test_distances_are_scaled_by_large_values_only():
    assert scaled_distance(np.array([100.0, 0.1]), np.array([101.0, 0.1])) == pytest.approx(0.01)
    assert scaled_distance(np.array([0.1]), np.array([0.2])) == pytest.approx(0.1)
    assert difference(np.array([0.0]), np.array([2e-4]), 1e-4) == "moved by 0.0002 (limit 0.0001)"


def test_a_row_that_is_a_number_on_one_side_alone_has_the_worst_cosine():
    assert smallest_cosine(X, with_one(NAN)) == smallest_cosine(with_one(NAN), X) == -1
    assert smallest_cosine(with_one(-INF), with_one(INF)) == -1
    assert smallest_cosine(X, np.zeros_like(X)) == 0
    masked = with_one(-INF)  # a masked score beside ordinary ones hides none of them
    assert smallest_cosine(masked, np.where(np.isinf(masked), masked, -masked)) == pytest.approx(-1)


def test_no_share_is_taken_over_what_is_nan_on_one_side():
    assert moved_share([X], [with_one(NAN)]) == moved_share([with_one(NAN)], [X]) == np.inf
    assert moved_share([with_one(-INF)], [with_one(INF)]) == np.inf


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        ([np.full((2, 3), NAN), np.full((1, 3), NAN)], "NaN"),
        ([np.zeros((0, 3), np.float32), np.zeros((2, 0), np.float32)], "empty"),
        ([], "empty"),
        ([np.zeros((2, 3)), np.zeros((1, 5))], "constant"),
        ([np.ones(4, np.int64), np.ones(2, np.int64)], "constant"),
        ([np.float32(2) * np.ones(()), np.float32(2) * np.ones(())], "constant"),
        ([np.tile(X[:1], (2, 1)), X[:1]], "constant"),
        ([np.tile(with_one(NAN)[1:2], (2, 1))], "constant"),
        ([np.full((2, 2), -INF)], "constant"),
        ([with_one(NAN)], ""),
        ([X[:1]], ""),
        ([X[:1], X[1:2]], ""),
        ([np.array(1.0)], ""),
        ([np.array(1.0), np.array(2.0)], ""),
        ([np.arange(3)], ""),
    ],
)
def test_outputs_that_verify_nothing(arrays, kind):
    assert vacuity(arrays) == kind


def test_a_constant_beside_a_result_is_excused_and_nan_is_not():
    assert unverified({"y": "", "scale": "constant"}) == ""
    assert unverified({"y": "", "z": "NaN"}) == (
        "'z' is NaN on every probe input, so nothing of it was verified"
    )
    assert unverified({"y": "constant", "z": "NaN"}, "row") == (
        "'y' is constant, 'z' is NaN on every row, so nothing was verified"
    )
    assert unverified({"y": ""}) == ""


def test_cosine_of_rows_and_of_nothing():
    a = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    b = np.array([[4.0, 3.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 0.0]], np.float32)
    assert cosine(a, b) == pytest.approx([0.96, -1.0, 1.0, 0.0], abs=1e-12)

"""The structured optimal brain surgeon against plain least squares."""

from itertools import combinations

import numpy as np
import pytest
import torch
from graphwright.ir.errors import DataError
from graphwright.passes.common.surgeon import Moments, Surgeon
from hypothesis import given, settings
from hypothesis import strategies as st

DAMPING = 0.01


def problem(rows, units, each, out, seed, constant=True):
    """Rows with related inputs, targets of other weights and noise: (x as seen, targets, weight, places)."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(units * each, units * each)) / 2 + np.eye(units * each)
    x = torch.from_numpy(rng.normal(size=(rows, units * each)) @ mixed).float()
    t = torch.from_numpy(rng.normal(size=(rows, out))).float() + x[:, :1]
    weight = rng.normal(size=(units * each + constant, out))
    places = [np.arange(unit * each, (unit + 1) * each) for unit in range(units)]
    full = np.hstack([x.numpy(), np.ones((rows, int(constant)))]).astype(np.float64)
    return x, t, full, weight, places


def best(full, t, weight, kept):
    """min |full W - t|^2 + pull |W - weight|^2 over rows `kept` of W, by NumPy's least squares."""
    pull = DAMPING * np.square(full).sum() / full.shape[1]
    stacked = np.vstack([full[:, kept], np.sqrt(pull) * np.eye(full.shape[1])[:, kept]])
    right = np.vstack([t.numpy().astype(np.float64), np.sqrt(pull) * weight])
    found = np.zeros_like(weight)
    found[kept] = np.linalg.lstsq(stacked, right, rcond=None)[0]
    return found, float(np.square(stacked @ found[kept] - right).sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 40), st.integers(2, 5), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_what_is_left_is_refitted_to_the_optimum(rows, units, each, constant, seed):
    x, t, full, weight, places = problem(rows, units, each, 3, seed, constant)
    surgeon = Surgeon(Moments.none().plus(x, t, constant), weight, places, DAMPING)
    removed = list(np.random.default_rng(seed).permutation(units)[: units // 2])
    kept = [i for i in range(len(weight)) if i // each not in removed or i >= units * each]
    np.testing.assert_allclose(surgeon.fitted(removed), best(full, t, weight, kept)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("each", [1, 3])
def test_each_unit_removed_is_the_one_whose_removal_costs_least(each):
    units = 6
    x, t, full, weight, places = problem(80, units, each, 4, 3)
    order = Surgeon(Moments.none().plus(x, t, True), weight, places, DAMPING).order()
    assert sorted(order) == list(range(units))
    left = set(range(units))
    for unit in order[:-1]:
        costs = {}
        for other in left:
            kept = [i for i in range(len(weight)) if i >= units * each or i // each in left - {other}]
            costs[other] = best(full, t, weight, kept)[1]
        assert unit == min(costs, key=costs.get)
        left.remove(unit)


def test_a_unit_that_others_can_stand_for_goes_before_a_smaller_one_that_they_cannot():
    """Which magnitude gets wrong, and what the refit makes up for entirely."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    x[:, 2] = x[:, 0]
    weight = np.array([[5.0], [1.0], [5.0]])
    t = torch.from_numpy(x @ weight).float()
    surgeon = Surgeon(
        Moments.none().plus(torch.from_numpy(x).float(), t, False),
        weight,
        [np.array([i]) for i in range(3)],
        1e-9,
    )
    first = surgeon.order()[0]
    assert first in (0, 2)
    np.testing.assert_allclose(surgeon.fitted([first])[[1, 2 - first], 0], [1, 10], rtol=1e-4)


def test_many_at_a_time_lose_hardly_more():
    x, t, full, weight, places = problem(400, 24, 1, 5, 1)
    surgeon = Surgeon(Moments.none().plus(x, t, True), weight, places, DAMPING)
    kept = [[i for i in range(25) if i not in surgeon.order(together)[:12]] for together in (1, 4)]
    one, four = (best(full, t, weight, each)[1] for each in kept)
    every = [best(full, t, weight, [*left, 24])[1] for left in list(combinations(range(24), 12))[::50_000]]
    assert one <= np.quantile(every, 0.05)
    assert four < 1.1 * one


def test_factors_are_the_least_squares_ones():
    x, t, full, weight, _ = problem(60, 5, 1, 3, 2)
    moments = Moments.none().plus(x, t, True)
    scaled = Surgeon(moments, weight, damping=1e-9).scaled(weight)
    columns = (full[:, :, None] * weight[None]).transpose(0, 2, 1).reshape(-1, len(weight))
    factors = np.linalg.lstsq(columns, t.numpy().reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(scaled, factors[:, None] * weight, rtol=1e-4)
    away = full @ scaled - t.numpy()
    assert moments.error(scaled) == pytest.approx(
        np.square(away).sum() / np.square(t.numpy()).sum(), rel=1e-5
    )


def test_rows_that_are_not_finite_are_left_out_and_no_rows_are_refused():
    x, t, _, weight, places = problem(30, 4, 1, 2, 0)
    spoilt = torch.cat([x, torch.full((1, 4), torch.nan)])
    found = Moments.none().plus(spoilt, torch.cat([t, t[:1]]), True)
    assert found.rows == 30
    np.testing.assert_array_equal(found.gram, Moments.none().plus(x, t, True).gram)
    with pytest.raises(DataError, match="no finite calibration rows"):
        Surgeon(Moments.none().plus(spoilt[30:], t[:1], True), weight, places)

"""Blocks are least squares by NumPy's own solver; neurons go where an exhaustive search puts them."""

from itertools import combinations

import numpy as np
import pytest
from graphwright.passes.share.groups.blocks import Seen, even, neurons


def data(rng, rows=300, columns=12):
    mixed = rng.standard_normal((rows, columns)) @ rng.standard_normal((columns, columns))
    return mixed + rng.standard_normal(columns)


def gram(x):
    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return ones.T @ ones


@pytest.mark.parametrize("biased", [True, False])
def test_a_block_is_what_least_squares_gives(biased):
    rng = np.random.default_rng(0)
    x, weight, columns = data(rng), rng.standard_normal((5, 12)), np.array([1, 4, 7])
    seen = Seen.of(gram(x), 12, biased, damping=1e-12)
    made, shift = seen.block(weight, columns)
    ones = np.ones((len(x), 1)) if biased else np.zeros((len(x), 0))
    inputs = np.concatenate([x[:, columns], ones], axis=1)
    best = np.linalg.lstsq(inputs, x @ weight.T, rcond=None)[0]
    np.testing.assert_allclose(made, best[:3].T, atol=1e-8)
    np.testing.assert_allclose(shift, best[3] if biased else 0, atol=1e-8)
    centred = x - x.mean(0) if biased else x
    assert seen.energy(weight) == pytest.approx(np.square(centred @ weight.T).sum(), rel=1e-10)


def test_texts_too_few_leave_what_stands_on_the_diagonal():
    rng = np.random.default_rng(1)
    weight, columns = rng.standard_normal((5, 12)), np.arange(4)
    none, _ = Seen.of(None, 12, True, 0.01).block(weight, columns)
    np.testing.assert_allclose(none, weight[:, :4], atol=1e-12)
    heavy, _ = Seen.of(gram(data(rng, rows=2)), 12, False, 1e9).block(weight, columns)
    np.testing.assert_allclose(heavy, weight[:, :4], atol=1e-6)


def test_neurons_go_where_an_exhaustive_search_puts_them():
    rng = np.random.default_rng(2)
    for gated in (False, True):
        ups = [rng.standard_normal((8, 6)) ** 3 for _ in range(1 + gated)]
        down = rng.standard_normal((6, 8)) ** 3
        into, inside = rng.random(6), rng.random(8)

        def held(first, ups=ups, down=down, into=into, inside=inside):
            """The share of energy on the blocks, where `first` are the neurons of the first group."""
            total = 0.0
            own = np.isin(np.arange(8), first)
            block = own[:, None] == (np.arange(6) < 3)
            for energy in (*(up**2 * into for up in ups), (down**2 * inside).T):
                total += (energy * block).sum() / energy.sum()
            return total

        best = max(combinations(range(8), 4), key=held)
        found = neurons(ups, down, into, inside, 2)
        assert tuple(found[0]) == best
        assert sorted(found.reshape(-1)) == list(range(8))
        assert held(found[0]) > held(range(4))


def test_even_groups_are_neighbours():
    np.testing.assert_array_equal(even(6, 3), [[0, 1], [2, 3], [4, 5]])

"""Where narrow layers start, against singular values of whole products."""

import numpy as np
import pytest
from graphwright.passes.share.narrow import start
from graphwright.passes.share.narrow.start import Affine, Seen

ROWS, DIM, SIZE = 200, 6, 2


@pytest.fixture(autouse=True)
def _sharp(monkeypatch):
    monkeypatch.setattr(start, "DAMPING", 1e-12)


def seen(x):
    one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return Seen.of(one.T @ one, x.shape[1])


def drawn(seed):
    random = np.random.default_rng(seed)
    return random.standard_normal((ROWS, DIM)) * np.arange(1, DIM + 1) + random.standard_normal(DIM)


def test_scores_lose_the_smallest_singular_values():
    q, k = drawn(0), drawn(1)
    a, b = start.scores([seen(q)], seen(k), SIZE)
    about = k - k.mean(0)
    values = np.linalg.svd(q @ about.T, compute_uv=False)
    lost = np.linalg.norm(q @ about.T - q @ a @ b.T @ about.T)
    assert lost == pytest.approx(np.linalg.norm(values[SIZE:]), rel=1e-6)


def test_weighed_values_lose_the_smallest_singular_values():
    v, product = drawn(2), np.random.default_rng(3).standard_normal((5, DIM))
    a, o = start.weighed(product, seen(v), SIZE)
    about = v - v.mean(0)
    values = np.linalg.svd(about @ product.T, compute_uv=False)
    lost = np.linalg.norm(about @ product.T - about @ a @ o.T)
    assert lost == pytest.approx(np.linalg.norm(values[SIZE:]), rel=1e-6)


def test_a_product_behind_a_basis_is_the_regression():
    x = drawn(4)
    product = Affine(np.random.default_rng(5).standard_normal((3, DIM)), np.arange(3.0))
    basis = start.principal([seen(x)], SIZE)
    after = product.after(seen(x), basis)
    u = np.concatenate([x @ basis, np.ones((ROWS, 1))], axis=1)
    best, *_ = np.linalg.lstsq(u, x @ product.weight.T + product.bias, rcond=None)
    np.testing.assert_allclose(np.concatenate([after.weight.T, after.bias[None]]), best, atol=1e-6)


def test_what_a_norm_takes_away_is_the_direction_that_holds_least():
    x = drawn(6)
    basis = start.principal([seen(x)], 3)
    turned = start.apart(basis)
    np.testing.assert_allclose(turned.T @ turned, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turned @ np.full(3, 3**-0.5), basis[:, 2], atol=1e-12)


def test_shared_directions_keep_most_of_what_products_make():
    x, product = drawn(7), np.random.default_rng(8).standard_normal((4, DIM))
    basis = start.scored(product, seen(x), SIZE)
    about = x - x.mean(0)
    values = np.linalg.svd(about @ product.T, compute_uv=False)
    after = Affine(product, np.zeros(4)).after(seen(x), basis)
    lost = np.linalg.norm(about @ product.T - about @ basis @ after.weight.T)
    assert lost == pytest.approx(np.linalg.norm(values[SIZE:]), rel=1e-6)

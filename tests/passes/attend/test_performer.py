"""performer: random features, the softmax's kernel in the mean."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.performer import Performer
from mixing import alone, away, by_loops, drawn, full, kept

SITE = SimpleNamespace(attention=SimpleNamespace(head_dim=4, heads=3), longest=None)


def made(heads, features, seed=0, centred=False, **options):
    kind = Performer(features=features, chunk=4, **options)
    own = kind.own(SITE, (lambda: iter([heads])) if centred else None, torch.Generator().manual_seed(seed))
    return kind, own


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_is_the_papers_formula_token_by_token(causal, centred):
    heads = drawn([13, 9, 4, 1], causal=causal)
    kind, own = made(heads, 12, centred=centred)
    w, root = own["features"].double().numpy(), heads.scale**0.5
    if not centred:

        def weight(q, k):
            q, k = q * root, k * root
            return np.exp(w @ q - q @ q / 2) @ np.exp(w @ k - k @ k / 2)

        wanted = by_loops(heads, weight)
        np.testing.assert_allclose(kept(heads, kind.mix(heads, own)), kept(heads, wanted), rtol=0, atol=1e-5)
        return
    for head in range(3):
        qs, ks = (own[name][head, 0].double().numpy() for name in ("query", "key"))

        def weight(q, k, qs=qs, ks=ks):
            q, k = q * root - qs, k * root - ks
            return np.exp(w @ q - q @ q / 2) @ np.exp(w @ k - k @ k / 2 + qs @ k)

        wanted = kept(heads, by_loops(heads, weight))[:, head]
        np.testing.assert_allclose(kept(heads, kind.mix(heads, own))[:, head], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_more_features_come_nearer_to_full_attention(causal, centred):
    heads = drawn([33, 20], causal=causal, spread=0.6)
    wanted = full(heads)

    def error(count):
        return np.mean([
            away(heads, kind.mix(heads, own), wanted)
            for kind, own in (made(heads, count, seed, centred) for seed in range(4))
        ])  # fmt: skip

    few, many = error(32), error(512)
    assert many < few / 4
    assert many < 0.02


def test_features_are_orthogonal_and_of_the_directions_and_lengths_of_normal_vectors():
    _, own = made(drawn([3]), 4000)
    w = own["features"]
    block = w[:4] @ w[:4].t()
    assert (block - torch.diag(block.diag())).abs().max() < 1e-5
    assert abs(float(w.square().sum(1).mean()) - 4) < 0.2
    assert w.mean(0).abs().max() < 0.1  # as QR gives them, it is 0.9


def test_means_of_texts_bring_it_nearer_where_queries_and_keys_lie_far_from_nothing():
    heads = drawn([33, 20], spread=0.6)
    heads.q.add_(1.5)
    heads.k.add_(1.5)
    wanted = full(heads)
    near, far = (
        away(heads, kind.mix(heads, own), wanted)
        for kind, own in (made(heads, 256, 0, centred) for centred in (True, False))
    )
    assert near < 0.05 < 0.3 < far


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("spread", [1e-4, 1.0, 30.0])
def test_numbers_of_any_size_stay_finite(spread, causal):
    heads = drawn([9, 2], causal=causal, spread=spread)
    heads.q.requires_grad_()
    heads.k.requires_grad_()
    kind, own = made(heads, 16)
    mixed = kind.mix(heads, own)
    mixed.sum().backward()
    assert all(x.isfinite().all() for x in (mixed, heads.q.grad, heads.k.grad))


def test_one_large_key_in_another_text_takes_nothing_from_this_one():
    heads = drawn([6, 6])
    kind, own = made(heads, 16)
    wanted = kind.mix(alone(heads, 0), own)
    heads.k[1] *= 20
    torch.testing.assert_close(kind.mix(heads, own)[:1], wanted, rtol=0, atol=1e-5)


def test_features_learn_where_that_is_asked_for():
    assert isinstance(made(drawn([3]), 8, learned=True)[1]["features"], torch.nn.Parameter)
    assert not isinstance(made(drawn([3]), 8)[1]["features"], torch.nn.Parameter)


@pytest.mark.parametrize("option", ["features", "chunk"])
def test_there_is_one_at_least(option):
    with pytest.raises(ValueError, match=f"{option} is 0, and 1 at least"):
        Performer(**{option: 0})

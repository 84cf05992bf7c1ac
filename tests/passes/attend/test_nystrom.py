"""nystrom: landmarks, and the pseudo-inverse of what they see of each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.nystrom import Nystrom, _inverse
from mixing import alone, away, drawn, full, kept

SITE = SimpleNamespace(attention=SimpleNamespace(head_dim=4, heads=3))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def inverse(a, iterations):
    """Xiong et al., 2021, equation 11."""
    z, one = a.T / (np.abs(a).sum(0).max() * np.abs(a).sum(1).max()), np.eye(len(a))
    for _ in range(iterations):
        z = z @ (13 * one - a @ z @ (15 * one - a @ z @ (7 * one - a @ z))) / 4
    return z


def reference(heads, landmarks, iterations=6, convolution=None):
    """Equation 13, each text by itself."""
    out = np.zeros(heads.v.shape)
    for b in range(len(out)):
        places = np.flatnonzero(heads.keep[b].numpy())
        n = len(places)
        count = min(landmarks, n)
        segments = [[i for i in range(n) if i * count // n == s] for s in range(count)]
        for h in range(out.shape[1]):
            q, k, v = (x[b, h, places].double().numpy() for x in (heads.q, heads.k, heads.v))
            q = q * heads.scale
            fewer_q, fewer_k = (np.array([x[one].mean(0) for one in segments]) for x in (q, k))
            middle = inverse(softmax(fewer_q @ fewer_k.T), iterations)
            mixed = softmax(q @ fewer_k.T) @ middle @ softmax(fewer_q @ k.T) @ v
            if convolution is not None:
                reach = len(convolution[h]) // 2
                for i in range(n):
                    for j in range(max(i - reach, 0), min(i + reach + 1, n)):
                        mixed[i] += convolution[h][j - i + reach] * v[j]
            out[b, h, places] = mixed
    return out


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("convolution", [0, 3])
def test_is_the_papers_formula_text_by_text(convolution, left):
    heads = drawn([13, 9, 4, 1], left=left)
    kind = Nystrom(landmarks=4, convolution=convolution)
    own, weight = {}, None
    if convolution:
        own = {"convolution": torch.randn(3, 1, 3, 1, generator=torch.Generator().manual_seed(1))}
        weight = own["convolution"][:, 0, :, 0].double().numpy()
    found = kind.mix(heads, own)
    wanted = kept(heads, reference(heads, 4, convolution=weight))
    np.testing.assert_allclose(kept(heads, found), wanted, rtol=1e-4, atol=1e-4)


def test_landmarks_for_all_tokens_are_full_attention_once_the_inverse_is_found():
    heads = drawn([13, 9, 4, 1])
    wanted = kept(heads, full(heads))
    found = kept(heads, Nystrom(landmarks=13, iterations=24).mix(heads, {}))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    few, many = (away(heads, Nystrom(landmarks=m, iterations=12).mix(heads, {}), full(heads)) for m in (2, 9))
    assert many < few / 2


def test_the_inverse_of_a_matrix_does_not_depend_on_those_beside_it():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 7, 7, generator=generator).softmax(-1)
    a[1] = torch.eye(7)
    together = _inverse(a, 6)
    for one, found in zip(a, together, strict=True):
        torch.testing.assert_close(_inverse(one[None], 6)[0], found)
        wanted = inverse(one.double().numpy(), 6)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_other_texts_move_nothing():
    heads = drawn([9, 9])
    wanted = Nystrom(landmarks=4).mix(alone(heads, 0), {})
    heads.q[1] *= 20
    torch.testing.assert_close(Nystrom(landmarks=4).mix(heads, {})[:1], wanted, rtol=0, atol=1e-5)


def test_a_convolution_starts_at_nothing_and_learns():
    heads = drawn([9, 4])
    kind = Nystrom(landmarks=4, convolution=5)
    own = kind.own(SITE, None, torch.Generator().manual_seed(0))
    mixed = kind.mix(heads, own)
    torch.testing.assert_close(mixed, Nystrom(landmarks=4).mix(heads, {}), rtol=0, atol=1e-7)
    mixed.square().sum().backward()
    assert (own["convolution"] != 0).all()
    assert own["convolution"].grad.abs().min() > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"landmarks": 0}, "landmarks is 0, and 1 at least"),
        ({"iterations": 0}, "iterations is 0, and 1 at least"),
        ({"convolution": 4}, "convolution is 4, and odd, or 0 for none"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, reason):
    with pytest.raises(ValueError, match=reason):
        Nystrom(**options)

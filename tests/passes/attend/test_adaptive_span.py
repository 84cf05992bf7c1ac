"""adaptive-span: keys fade out at a distance which each head learns."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.adaptive_span import AdaptiveSpan
from mixing import drawn, full, kept
from substituted import causal, lowered_alike, trained


def reference(heads, spans, ramp):
    """Sukhbaatar et al., 2019, equations 2 and 3, key by key."""
    q, k, v = (x.double().numpy() for x in (heads.q, heads.k, heads.v))
    out = np.zeros(v.shape)
    for b, h, i in np.ndindex(*q.shape[:3]):
        seen = [j for j in range(q.shape[2]) if heads.keep[b, j] and (j <= i or not heads.causal)]
        if heads.keep[b, i]:
            share = [min(max((ramp + spans[h] - abs(i - j)) / ramp, 0), 1) for j in seen]
            weights = np.array(share) * np.exp(k[b, h, seen] @ q[b, h, i] * heads.scale)
            out[b, h, i] = weights @ v[b, h, seen] / weights.sum()
    return out


@pytest.mark.parametrize("looks_back", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_is_the_papers_formula_key_by_key(left, looks_back):
    heads = drawn([13, 9, 4, 1], left=left, causal=looks_back)
    own = {"spans": torch.tensor([0.0, 0.5, 1.7])}
    found = AdaptiveSpan(span=4, ramp=3).mix(heads, own)
    wanted = reference(heads, [0.0, 2.0, 6.8], 3)
    np.testing.assert_allclose(kept(heads, found), kept(heads, wanted), rtol=0, atol=1e-5)


def test_a_span_of_all_tokens_is_full_attention():
    heads = drawn([13, 9, 4, 1])
    found = AdaptiveSpan(span=13, ramp=1).mix(heads, {"spans": torch.ones(3)})
    np.testing.assert_allclose(kept(heads, found), kept(heads, full(heads)), rtol=0, atol=1e-5)


def test_a_span_below_zero_sees_itself():
    heads = drawn([5])
    found = AdaptiveSpan(span=4, ramp=1).mix(heads, {"spans": torch.full((3,), -9.0)})
    np.testing.assert_allclose(found, heads.v, rtol=0, atol=1e-6)


def test_runtimes_agree_and_spans_learn():
    trained(lowered_alike("bert", "kind=adaptive-span,span=2,ramp=3"), "spans")


def test_nothing_later_is_seen():
    causal("llama", "kind=adaptive-span,span=2,ramp=3")


@pytest.mark.parametrize("name", ["span", "ramp"])
def test_bad_options_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0, and 1 at least"):
        AdaptiveSpan(**{name: 0})

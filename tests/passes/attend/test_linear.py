"""linear: positive features summed once, and in chunks where a model looks back only."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.linear import Linear
from graphwright.passes.attend.parts.recurrence import look_back
from mixing import by_loops, drawn, kept


def reference(heads):
    """Katharopoulos et al., 2020, equations 3 and 7."""
    root = heads.scale**0.5

    def phi(x):
        return np.where(x > 0, x * root + 1, np.exp(np.minimum(x, 0) * root))

    return by_loops(heads, lambda q, k: phi(q) @ phi(k))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("longest", [1, 3, 4, 5, 13])
def test_is_the_papers_formula_token_by_token(longest, causal, left):
    heads = drawn([longest, max(longest - 2, 1)], causal=causal, left=left)
    found = Linear(chunk=4).mix(heads, {})
    np.testing.assert_allclose(kept(heads, found), kept(heads, reference(heads)), rtol=0, atol=1e-5)


def test_features_that_elu_rounds_to_zero_still_weigh():
    heads = drawn([6])
    heads.q.fill_(1.0)
    heads.k.copy_(-60 - torch.arange(6.0)[None, None, :, None])  # elu(x) + 1 is 0 in float32 below -17
    found = kept(heads, Linear().mix(heads, {}))
    np.testing.assert_allclose(found, kept(heads, reference(heads)), rtol=0, atol=1e-5)
    assert np.abs(found).max() > 0.1


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_chunks_give_what_one_sum_over_earlier_keys_gives(length):
    generator = torch.Generator().manual_seed(length)
    q, k = (torch.rand(2, 3, length, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 3, length, 7, generator=generator, dtype=torch.float64)
    wanted = (q @ k.transpose(2, 3)).tril() @ v
    torch.testing.assert_close(look_back(q, k, v, 64), wanted, rtol=0, atol=1e-11)


def test_a_chunk_is_one_place_at_least():
    with pytest.raises(ValueError, match="chunk is 0, and 1 at least"):
        Linear(chunk=0)

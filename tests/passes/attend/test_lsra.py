"""lsra: the most local heads convolve, the others attend."""

import numpy as np
import pytest
import torch
from graphwright.passes.attend.kinds.conv import Conv
from graphwright.passes.attend.kinds.lsra import Lsra
from mixing import drawn, full, kept
from substituted import causal, lowered_alike, trained


class _Site:
    causal = False


def local(heads, chosen):
    """Makes a head look at its own place nearly alone."""
    unit = torch.nn.functional.one_hot(torch.arange(heads.q.shape[2]) % 4, 4) * 9.0
    heads.q[:, chosen], heads.k[:, chosen] = unit, unit
    return heads


@pytest.mark.parametrize("chosen", [0, 1, 2])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_head_that_a_convolution_meets_best_is_one_and_the_others_attend(chosen, dynamic):
    heads = local(drawn([4, 4, 3]), chosen)
    heads.x.copy_(torch.randn(heads.x.shape, generator=torch.Generator().manual_seed(1)))
    kind = Lsra(share=0.3, kernel=3, dynamic=dynamic)
    own = kind.own(_Site, lambda: iter([heads]), torch.Generator())
    assert own["local"].tolist() == [chosen]
    found, attended = kind.mix(heads, own).detach(), full(heads)
    others = [head for head in range(3) if head != chosen]
    np.testing.assert_allclose(
        kept(heads, found)[:, others], kept(heads, attended)[:, others], rtol=0, atol=1e-5
    )
    whole = Conv(kernel=3, dynamic=dynamic)
    alone = whole.mix(heads, whole.own(_Site, lambda: iter([heads]), torch.Generator()))
    np.testing.assert_allclose(
        kept(heads, found)[:, chosen], kept(heads, alone)[:, chosen], rtol=0, atol=1e-5
    )


def test_a_share_of_none_is_full_attention_and_one_of_all_a_convolution():
    heads = drawn([9, 6, 2, 1])
    seen = lambda: iter([heads])
    for share, wanted in (
        (0.0, full(heads)),
        (1.0, Conv(kernel=5).mix(heads, Conv(kernel=5).own(_Site, seen, torch.Generator()))),
    ):
        kind = Lsra(share=share, kernel=5)
        found = kind.mix(heads, kind.own(_Site, seen, torch.Generator()))
        np.testing.assert_allclose(kept(heads, found), kept(heads, wanted), rtol=0, atol=1e-5)


def test_runtimes_agree_and_kernels_learn():
    trained(lowered_alike("bert", "kind=lsra,kernel=5"), "kernels")


def test_nothing_later_is_seen():
    causal("gpt2", "kind=lsra,kernel=5")


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"share is 1\.5, and 0 to 1"):
        Lsra(share=1.5)

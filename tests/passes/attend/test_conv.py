"""conv: a softmax over neighbours that are tokens, by kernels that begin as the mean attention."""

import re

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.text import text
from graphwright.passes.attend.kinds.conv import Conv, started
from graphwright.passes.attend.parts.neighbours import fitted, kernels
from handmade import golden
from mixing import alone, drawn, kept
from substituted import causal, lowered_alike, substituted, trained
from tokens import batch
from torch import nn


def reference(heads, logits, width):
    """Wu et al., 2019, sections 3 and 4, place by place; logits (batch, heads, length, width)."""
    v, out = heads.v.double().numpy(), np.zeros(heads.v.shape)
    first = -(width - 1) if heads.causal else -(width // 2)
    for b, h, i in np.ndindex(*v.shape[:3]):
        near = [d for d in range(width) if 0 <= i + first + d < v.shape[2] and heads.keep[b, i + first + d]]
        if heads.keep[b, i]:
            weights = np.exp(logits[b, h, i, near])
            out[b, h, i] = weights / weights.sum() @ v[b, h, [i + first + d for d in near]]
    return out


@pytest.mark.parametrize("looks_back", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("width", [1, 5, 13])
def test_is_the_papers_formula_place_by_place(width, left, looks_back):
    heads = drawn([9, 6, 2, 1], left=left, causal=looks_back)
    table = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    found = Conv(kernel=width).mix(heads, {"kernels": table})
    each = np.broadcast_to(table.double().numpy()[None, :, None], (4, 3, 9, width))
    np.testing.assert_allclose(kept(heads, found), kept(heads, reference(heads, each, width)), atol=1e-5)


@pytest.mark.parametrize("looks_back", [False, True])
def test_dynamic_kernels_are_products_of_what_each_place_holds(looks_back):
    heads = drawn([9, 6, 2, 1], causal=looks_back)
    generator = torch.Generator().manual_seed(1)
    heads.x.copy_(torch.randn(heads.x.shape, generator=generator))
    own = {"weight": torch.randn(12, 15, generator=generator), "bias": torch.randn(15, generator=generator)}
    found = Conv(kernel=5, dynamic=True).mix(heads, own)
    each = (heads.x.double().numpy() @ own["weight"].double().numpy() + own["bias"].double().numpy()).reshape(
        4, 9, 3, 5
    )
    wanted = reference(heads, each.transpose(0, 2, 1, 3), 5)
    np.testing.assert_allclose(kept(heads, found), kept(heads, wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("looks_back", [False, True])
def test_kernels_begin_as_the_mean_attention_by_distance(looks_back):
    heads = drawn([7, 4, 1], causal=looks_back)
    found = kernels(lambda: iter([heads, heads]), 5, looks_back)
    total, count = np.zeros((3, 5)), np.zeros(5)
    first = -4 if looks_back else -2
    for row in range(3):
        one = alone(heads, row)
        scores = (one.q @ one.k.transpose(2, 3) * one.scale)[0].double().numpy()
        n = scores.shape[1]
        if looks_back:
            scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        maps = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        for i, d in np.ndindex(n, 5):
            if 0 <= i + first + d < n:
                total[:, d] += maps[:, i, i + first + d]
                count[d] += 1
    np.testing.assert_allclose(found.exp().numpy(), total / count, rtol=1e-5)


def test_where_places_hold_nothing_all_are_given_the_mean_logarithms_of_their_shares():
    heads = drawn([7])
    own = started(lambda: iter([heads]), 3, False, True)
    scores = (heads.q @ heads.k.transpose(2, 3) * heads.scale)[0].double().numpy()
    maps = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    total = np.zeros((3, 7, 3))
    for i, d in np.ndindex(7, 3):
        near = [j for j in (i - 1, i, i + 1) if 0 <= j < 7]
        lone = [maps[:, k, k + d - 1] for k in range(7) if 0 <= k + d - 1 < 7]
        there = 0 <= i + d - 1 < 7
        total[:, i, d] = np.log(
            maps[:, i, i + d - 1] / maps[:, i, near].sum(-1) if there else np.mean(lone, 0)
        )
    np.testing.assert_allclose(own["bias"].detach().numpy().reshape(3, 3), total.mean(1), rtol=1e-4)
    assert not own["weight"].any()


def test_the_least_squares_map_is_numpys_with_a_small_ridge():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 4, generator=generator).double(), torch.randn(50, 3, generator=generator).double()
    weight, bias = fitted([(x[:20], y[:20]), (x[20:], y[20:])])
    one = np.concatenate([x.numpy(), np.ones((50, 1))], 1)
    wanted = np.linalg.lstsq(one, y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(torch.cat([weight, bias[None]]).numpy(), wanted, rtol=0, atol=2e-3)


def test_runtimes_agree_kernels_learn_and_nothing_is_as_large_as_the_length_squared():
    program = lowered_alike("bert", "kind=conv,kernel=5,dynamic=true")
    trained(program, "attend.0.weight")
    for node in program.graph.graph.nodes:
        shape = [
            str(size) for size in getattr(node.meta.get("val"), "shape", ()) if not isinstance(size, int)
        ]
        if "softmax" in str(node.target) or "scaled_dot" in str(node.target):
            raise AssertionError(f"{node} is left")
        assert len(shape) == len(set(shape)) or "bool" in str(node.meta["val"].dtype), node


def test_nothing_later_is_seen():
    causal("llama", "kind=conv,kernel=5,dynamic=true")


@pytest.mark.parametrize("width", [0, 4, -3])
def test_a_kernel_of_an_even_width_is_refused(width):
    with pytest.raises(ValueError, match=f"kernel is {width}, and an odd number of places"):
        Conv(kernel=width)


class One(nn.Module):
    """An attention of two heads and nothing else."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, input_ids, attention_mask):
        x = self.words(input_ids)
        q, k, v = (each(x).unflatten(-1, (2, 4)).transpose(1, 2) for each in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attention_mask[:, None, None].bool())
        return self.o(mixed.transpose(1, 2).flatten(2))


def test_golden():
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (2, 7))
    program = capture(One().eval(), inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    after = substituted(program, "kind=conv,kernel=3", [batch(program, (5, 3))])
    shown = [re.sub(r" #[0-9a-f]+", "", text(one)) for one in (program, after)]
    golden("attend/conv", "# before\n{}\n# after\n{}\n".format(*shown))

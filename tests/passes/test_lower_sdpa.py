"""to-onnx on scaled_dot_product_attention: queries that see no key give zero, as in PyTorch."""

import graphwright as gw
import numpy as np
import pytest
import torch
from graphwright.ir.execute import execute
from graphwright.passes.base import Context
from graphwright.passes.lower.to_onnx import ToOnnx
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Attend(nn.Module):
    """heads: queries'; kv_heads: keys' and values'. causal: a query sees no later key. window: nor one
    farther away."""

    def __init__(self, heads=4, kv_heads=4, causal=True, additive=False, window=0):
        super().__init__()
        self.heads, self.kv_heads, self.causal, self.additive = heads, kv_heads, causal, additive
        self.window = window
        self.query, self.key, self.value = (nn.Linear(16, 4 * n) for n in (heads, kv_heads, kv_heads))

    def forward(self, hidden, attention_mask):
        split = lambda x, heads: x.unflatten(-1, (heads, 4)).transpose(1, 2)
        query, key, value = self.query(hidden), self.key(hidden), self.value(hidden)
        mask = attention_mask.bool()[:, None, None, :]
        if self.causal:
            places = torch.arange(hidden.shape[1])
            mask = mask & (places[:, None] >= places)
        if self.window:
            places = torch.arange(hidden.shape[1])
            mask = mask & ((places[:, None] - places).abs() <= self.window)
        if self.additive:
            mask = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        query, key, value = split(query, self.heads), split(key, self.kv_heads), split(value, self.kv_heads)
        grouped = self.heads != self.kv_heads
        context = scaled_dot_product_attention(query, key, value, mask, scale=0.7, enable_gqa=grouped)
        return context.transpose(1, 2).flatten(2)


def lowered(module):
    torch.manual_seed(0)
    example = {"hidden": torch.randn(2, 5, 16), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    program = gw.trace(module.eval(), inputs=example)
    return ToOnnx().run(program, Context()).program


def operators(program):
    return {node.op_type for node in program.graph.graph}


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("additive", [False, True])
def test_left_padding_under_a_causal_mask(kv_heads, additive):
    module = Attend(kv_heads=kv_heads, additive=additive)
    program = lowered(module)
    hidden, mask = torch.randn(3, 6, 16), torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6, [0] * 5 + [1]])
    expected = module(hidden, mask).detach().numpy()
    assert not expected[0, :3].any()  # PyTorch's own zeros
    (found,) = execute(program, [{"hidden": hidden.numpy(), "attention_mask": mask.numpy()}])
    np.testing.assert_allclose(found[program.outputs[0]], expected, rtol=0, atol=1e-6)
    assert "IsNaN" in operators(program)


def test_padding_farther_than_a_wide_window():
    module = Attend(causal=False, window=64)
    program = lowered(module)
    hidden, mask = torch.randn(2, 150, 16), (torch.arange(150) < torch.tensor([[20], [150]])).long()
    expected = module(hidden, mask).detach().numpy()
    (found,) = execute(program, [{"hidden": hidden.numpy(), "attention_mask": mask.numpy()}])
    np.testing.assert_allclose(found[program.outputs[0]], expected, rtol=0, atol=1e-6)


def test_a_mask_that_leaves_every_query_a_key_costs_nothing():
    assert "IsNaN" not in operators(lowered(Attend(causal=False)))

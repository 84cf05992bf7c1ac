"""to-onnx on scaled_dot_product_attention: queries that see no key give zero, as in PyTorch."""

import graphwright as gw
import numpy as np
import pytest
import torch
from graphwright.ir.execute import execute
from graphwright.passes.lower.parts.sdpa import spell_masks
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
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


class Given(nn.Module):
    """Two layers of attention under a mask that is handed in, or that lengths or ids make."""

    def __init__(self, made=lambda given, length: given):
        super().__init__()
        self.layers, self.made = nn.ModuleList(nn.Linear(16, 48) for _ in range(2)), made

    def forward(self, hidden, given):
        mask = self.made(given, hidden.shape[1])
        for layer in self.layers:
            q, k, v = (x.unflatten(-1, (4, 4)).transpose(1, 2) for x in layer(hidden).chunk(3, -1))
            mixed = scaled_dot_product_attention(q, k, v, mask)
            hidden = hidden + mixed.transpose(1, 2).flatten(2)
        return hidden


def spelled(module, given):
    """The attentions as they are exported, still in PyTorch; that ONNX Runtime agrees is tested above."""
    program = gw.trace(module.eval(), inputs={"hidden": torch.randn(3, 9, 16), "given": given})
    return spell_masks(program)


KEPT = torch.arange(9) < torch.tensor([[9], [4], [2]])


@pytest.mark.parametrize("additive", [False, True])
def test_a_mask_of_queries_and_keys_may_leave_padding_without_a_key(additive):
    torch.manual_seed(0)
    module = Given()
    given = KEPT[:, None, None] & KEPT[:, None, :, None]
    if additive:
        given = torch.zeros(given.shape).masked_fill(~given, -torch.inf)
    hidden = torch.randn(3, 9, 16)
    (found,) = spelled(module, given)(hidden, given)
    torch.testing.assert_close(found, module(hidden, given), rtol=0, atol=1e-6)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(
    ("made", "given"),
    [
        (lambda n, length: (torch.arange(length) < n[:, None])[:, None, None], torch.tensor([9, 4, 2])),
        (lambda ids, length: (ids != 1)[:, None, None], torch.arange(27).reshape(3, 9) % 5),
    ],
    ids=["lengths", "ids"],
)
def test_what_lengths_and_ids_hide_is_not_left_to_probes(made, given):
    torch.manual_seed(0)
    module, hidden = Given(made), torch.randn(3, 9, 16)
    graph = spelled(module, given)
    nothing = torch.zeros_like(given) if given.dim() == 1 else torch.ones_like(given)
    (found,) = graph(hidden, nothing)
    torch.testing.assert_close(found, module(hidden, nothing), rtol=0, atol=1e-6)

"""An FX graph at fixed sizes: what becomes a constant, what stays, and that it computes the same."""

import pytest
import torch
from graphwright.backends.tvm.frontend.fixed_sizes import fixed_sizes
from graphwright.ir.capture import capture
from graphwright.passes.lower.parts.sdpa import write_out
from torch.nn import functional as F  # noqa: N812

aten = torch.ops.aten


def fixed(module, x):
    """(the captured graph, it at the sizes of x)."""
    example = torch.randn(4, 6, x.shape[-1]) if x.dim() == 3 else torch.randn(4, 6)
    graph = capture(module.eval(), inputs={"x": example}).graph
    return graph, fixed_sizes(graph, [x])


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


class Positions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 5)

    def forward(self, x):
        return x + self.table(torch.arange(x.shape[1])) * x.shape[0]


class Causal(torch.nn.Module):
    def forward(self, x):
        hidden = torch.ones_like(x[0] @ x[0].T).triu(1).bool()
        return (x @ x.transpose(1, 2)).masked_fill(hidden, -1.0)


class Expanded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.token = torch.nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, x):
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)


class Flat(torch.nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0] * x.shape[1], -1).sum(0)


@pytest.mark.parametrize(
    ("module", "left"),
    [
        (Positions(), [aten.add.Tensor]),
        (Expanded(), [aten.expand.default, aten.cat.default]),
        (Flat(), [aten.reshape.default, aten.sum.dim_IntList]),
    ],
)
def test_only_what_reads_the_inputs_is_left(module, left):
    x = torch.randn(2, 7, 5)
    graph, at = fixed(module, x)
    assert targets(at) == left
    assert not any(isinstance(node.meta.get("val"), torch.SymInt) for node in at.graph.nodes if node.users)
    assert torch.equal(at(x)[0], graph(x)[0])
    assert len(targets(graph)) > len(left) or module.__class__ is Expanded


def test_a_tensor_taken_for_its_shape_is_no_operand():
    """ones_like of an activation is known before the activation is."""
    x = torch.randn(2, 7, 5)
    graph, at = fixed(Causal(), x)
    assert aten.ones_like.default in targets(graph)
    assert set(targets(at)) == {aten.transpose.int, aten.matmul.default, aten.masked_fill.Scalar}
    assert torch.equal(at(x)[0], graph(x)[0])


def test_an_expanded_weight_is_stored_once():
    at = fixed(Expanded(), torch.randn(64, 7, 5))[1]
    assert sum(t.numel() for t in [*at.parameters(), *at.buffers()]) == 5


class Attending(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        q = x.unflatten(-1, (4, 3)).transpose(1, 2)
        k = q[:, ::2] if self.options.get("enable_gqa") else q
        return F.scaled_dot_product_attention(q, k, k, **self.options)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.7}, {"enable_gqa": True}])
def test_attention_written_out_is_attention(options):
    """TVM's importer would drop the scale, and take grouped heads for plain ones."""
    x = torch.randn(2, 7, 12)
    program = capture(Attending(**options), inputs={"x": torch.randn(3, 5, 12)})
    reference = program.graph(x)[0]
    assert write_out(program.graph) == 1
    assert torch.allclose(program.graph(x)[0], reference, rtol=0, atol=1e-6)
    assert aten.scaled_dot_product_attention.default not in targets(program.graph)

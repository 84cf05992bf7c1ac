"""The vocabulary against PyTorch: what each ATen operator is called, and what its row says of it."""

import operator

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.fx import graph as fx
from graphwright.ir.fx.operators import RULES
from graphwright.ir.ops.coupling import groups
from graphwright.ir.ops.evaluate import Unknown, evaluate
from graphwright.ir.ops.shapes import infer
from graphwright.ir.ops.table import OPERATORS, ROWS
from graphwright.ir.view import view
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv

torch.manual_seed(0)
X, Y = torch.rand(2, 3, 4) + 0.1, torch.rand(3, 1) + 0.1
MATRIX, BIAS, ROW = torch.rand(4, 5), torch.rand(5), torch.rand(4)
IDS, YES = torch.tensor([[1, 0, 2], [2, 2, 1]]), torch.rand(2, 3, 4) > 0.5
IMAGE, WINDOW = torch.rand(2, 4, 9, 7), torch.rand(6, 2, 3, 3)
HEADS = torch.rand(2, 3, 5, 4)
STEPS, ZEROS = torch.full((4,), 0.1), torch.zeros(4)
F32 = torch.float32

UNARY = (
    "abs absolute ceil cos erf exp floor isnan log neg negative reciprocal relu round rsqrt sigmoid sign "
    "silu sin sqrt square tanh alias clone contiguous detach lift_fresh_copy zeros_like ones_like t gelu "
    "softplus mT numpy_T"
)
BINARY = "maximum minimum logical_and logical_or logical_xor"
TENSOR = (
    "add sub subtract mul multiply div divide true_divide eq ne not_equal lt less le less_equal gt greater "
    "ge greater_equal"
)
EXAMPLES = [
    *[(f"{name}.default", (MATRIX if name == "t" else X,)) for name in UNARY.split()],
    *[(f"{name}.default", (X, Y)) for name in BINARY.split()],
    *[(f"{name}.Tensor", (X, Y)) for name in TENSOR.split()],
    *[(f"{name}.Tensor", (YES, YES[:, :1])) for name in "__and__ __or__ __xor__".split()],
    *[(f"bitwise_{name}.Tensor", (YES, YES[:, :1])) for name in ("and", "or", "xor")],
    *[(f"{name}.default", (YES,)) for name in ("bitwise_not", "logical_not")],
    *[(f"{name}.dim", (X, [-1])) for name in ("mean", "var")],
    ("mean.dim", (X, [0, 2], True)),
    ("var.correction", (X, [1]), {"correction": 0, "keepdim": True}),
    ("var.default", (X, False)),
    ("sum.dim_IntList", (X, [1])),
    ("sum.default", (X,)),
    *[(f"{name}.default", (X, [-1], True)) for name in ("amax", "amin")],
    *[(f"{name}.other", (X, Y)) for name in ("max", "min")],
    *[(f"{name}.default", (X,)) for name in ("max", "min")],
    *[(f"{name}.dim", (X, 1)) for name in ("max", "min")],
    ("linalg_vector_norm.default", (X, 2, [-1])),
    ("argmax.default", (X, 1)),
    ("argmax.default", (X, -1, True)),
    ("cumsum.default", (X, 1)),
    ("pow.Tensor_Scalar", (X, 3)),
    ("rsub.Scalar", (X, 1)),
    ("gelu.default", (X,), {"approximate": "tanh"}),
    ("clamp.default", (X, 0.3, 0.6)),
    ("clip.default", (X, None, 0.6)),
    ("clamp_min.default", (X, 0.3)),
    ("clamp_max.default", (X, 0.3)),
    ("matmul.default", (X, MATRIX)),
    ("mm.default", (X[0], MATRIX)),
    ("bmm.default", (X, X.transpose(1, 2).contiguous())),
    ("addmm.default", (BIAS, X[0], MATRIX)),
    ("linear.default", (X, MATRIX.T.contiguous(), BIAS)),
    ("einsum.default", ("bij,jk->bik", [X, MATRIX])),
    ("conv1d.default", (HEADS[0], torch.rand(6, 5, 3), None, [1], [1])),
    ("conv2d.default", (IMAGE, WINDOW, None, [2, 1], [1, 0], [1, 2], 2)),
    ("convolution.default", (IMAGE, WINDOW, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 2)),
    ("scaled_dot_product_attention.default", (HEADS, HEADS, HEADS[..., :2])),
    *[(f"{name}.default", (X, [2, 12])) for name in ("view", "reshape", "_unsafe_view")],
    *[(f"{name}.default", (X, X.reshape(6, 4))) for name in ("view_as", "reshape_as")],
    ("flatten.using_ints", (X, 1)),
    ("unflatten.int", (X, 2, [2, 2])),
    ("permute.default", (X, [2, 0, 1])),
    ("transpose.int", (X, 0, -1)),
    ("swapaxes.default", (X, 0, 1)),
    ("expand.default", (Y, [2, 3, 4])),
    ("expand_as.default", (Y, X)),
    ("broadcast_to.default", (Y, [2, 3, 4])),
    ("unsqueeze.default", (X, -1)),
    ("squeeze.dim", (Y, -1)),
    ("squeeze.default", (Y,)),
    ("slice.Tensor", (X, -1, 1, 2**63 - 1, 2)),
    ("slice.Tensor", (X, 1, -2)),
    ("select.int", (X, 1, -1)),
    ("unbind.int", (X, 1)),
    ("split.Tensor", (X, 3, -1)),
    ("split_with_sizes.default", (X, [1, 3], 2)),
    ("chunk.default", (X, 2, 2)),
    ("cat.default", ([X, X[:, :1]], 1)),
    ("concat.default", ([X, X[:, :, :0]], -1)),
    ("stack.default", ([X, X], -1)),
    ("embedding.default", (MATRIX, IDS)),
    ("index_select.default", (X, 1, IDS[0])),
    ("gather.default", (X[:, :, 0], 1, IDS)),
    ("index.Tensor", (X, [None, IDS[0]])),
    ("index.Tensor", (X, [IDS[0] % 2, IDS[1]])),
    ("layer_norm.default", (X, [4], ROW, ROW)),
    ("native_layer_norm.default", (X, [4], ROW, ROW, 1e-5)),
    ("rms_norm.default", (X, [4], ROW)),
    *[(f"{name}.int", (X, 1)) for name in ("softmax", "log_softmax")],
    *[(f"{name}.default", (X, 1, False)) for name in ("_softmax", "_log_softmax")],
    ("dropout.default", (X, 0.5, False)),
    ("to.dtype", (X, torch.int64)),
    ("to.dtype", (X, F32)),
    ("_to_copy.default", (X,), {"dtype": torch.float64}),
    ("type_as.default", (X, IDS)),
    ("where.self", (YES, X, Y)),
    ("masked_fill.Scalar", (X, YES, -3.0)),
    ("arange.start_step", (1, 9, 3)),
    ("full.default", ([2, 3], 7)),
    ("full_like.default", (X, 0.5)),
    ("new_full.default", (X, [2], True), {"dtype": torch.bool}),
    *[(f"{name}.default", ([2, 3],)) for name in ("zeros", "ones")],
    *[(f"{name}.default", (X, [2, 3])) for name in ("new_zeros", "new_ones")],
    ("scalar_tensor.default", (2.5,)),
    ("pad.default", (X, [1, 2])),
    ("constant_pad_nd.default", (X, [0, 1, 2, 0], 1.0)),
    ("repeat.default", (Y, [2, 1, 3])),
    ("tril.default", (X,)),
    ("triu.default", (X, 1)),
    ("fake_quantize_per_tensor_affine.default", (X, 0.1, 0, -8, 7)),
    ("fake_quantize_per_channel_affine.default", (X, STEPS, ZEROS.int(), 2, -8, 7)),
    ("_fake_quantize_learnable_per_tensor_affine.default", (X, STEPS[:1], ZEROS[:1], -8, 7)),
    ("_fake_quantize_learnable_per_channel_affine.default", (X, STEPS, ZEROS, 2, -8, 7)),
]


def traced(name, args, kwargs=None):
    """One call as a view: its results, what PyTorch computes for each, and the tensors that go in."""
    packet, overload = name.split(".")
    target = getattr(getattr(torch.ops.aten, packet), overload)
    graph, mode, feeds = Graph(), FakeTensorMode(shape_env=ShapeEnv()), {}

    def enter(argument):
        if isinstance(argument, list):
            return [enter(each) for each in argument]
        if not isinstance(argument, torch.Tensor):
            return argument
        node = graph.placeholder(f"x{len(feeds)}")
        node.meta["val"] = mode.from_tensor(argument, static_shapes=True)
        feeds[node] = argument
        return node

    entered = [enter(argument) for argument in args]
    if not feeds:  # a graph without tensors has no mode
        graph.placeholder("unused").meta["val"] = mode.from_tensor(ROW, static_shapes=True)
    end = graph.output(())
    results = [fx.call(graph, target, *entered, before=end, **(kwargs or {}))]
    expected = target(*args, **(kwargs or {}))
    if isinstance(expected, tuple | list):
        source = results[0]
        results = [fx.call(graph, operator.getitem, source, i, before=end) for i in range(len(expected))]
    else:
        expected = [expected]
    end.args = (tuple(results),)
    seen = fx.FxView(GraphModule(nn.Module(), graph))
    known = {seen.of(node): tensor.numpy() for node, tensor in feeds.items()}
    return seen, [seen.of(node) for node in results], expected, known


def test_every_rule_has_an_example():
    assert RULES.keys() - {f"aten.{name.split('.')[0]}" for name, *_ in EXAMPLES} == {"aten.sym_size"}


def test_a_name_stands_once():
    assert len(OPERATORS) == len(ROWS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[0])
def test_a_row_says_what_pytorch_does(example):
    seen, values, expected, known = traced(*example)
    for value, tensor in zip(values, expected, strict=True):
        if value.op in ("aten.max.dim", "aten.min.dim"):  # where the largest lies, beside it
            assert value.index == 1
            continue
        row = OPERATORS[value.op]
        if value.index == 0 or value.op == "split":
            shape = infer(value.op, value.inputs, value.attrs, value.index)
            assert shape is None if row.shape is None else shape in (tuple(tensor.shape), (None,))
        if row.compute is None:
            with pytest.raises(Unknown):
                evaluate(value, known)
        elif value.index == 0:
            computed = evaluate(value, known)
            assert computed.shape == tuple(tensor.shape)
            np.testing.assert_allclose(computed, tensor.numpy(), rtol=2e-6, atol=1e-6)
    if all(value.op in OPERATORS for value in values):
        groups(seen)


class Sizes(nn.Module):
    """Arithmetic on sizes, as data."""

    def forward(self, x):
        n, m = x.shape[0], x.shape[1]
        return x * (n // 2) + x / (m / 3) + x * max(n, m) + x * (n * m % 5) + x * torch.sym_float(n - m)


def test_arithmetic_on_sizes_is_listed():
    seen = view(capture(Sizes(), inputs={"x": torch.rand(5, 3, 4)}))
    assert {"dim", "floordiv", "truediv", "mod", "sub"} <= {value.op for value in seen}
    assert {value.op for value in seen} <= OPERATORS.keys()
    x = torch.rand(5, 3, 4)
    computed = evaluate(seen.outputs[0], {seen.inputs[0]: x.numpy()})
    np.testing.assert_allclose(computed, Sizes()(x).numpy(), rtol=2e-6)
    groups(seen)


def test_what_isnt_listed_stays_as_it_is_and_is_named():
    found = [g for g in groups(traced("roll.default", (X, [1], [1]))[0]) if g.members[0].value.op != "input"]
    assert [group.size for group in found] == [2, 3, 4]
    assert all("aten.roll.default (roll" in group.fixed for group in found)

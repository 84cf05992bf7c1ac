"""The FX adapter's finer points, and the helpers that rewrite an FX graph; the zoo tests the operators."""

import numpy as np
import pytest
import torch
import zoo
from graphwright.ir.fx import graph as fx
from graphwright.ir.fx.graph import FxView
from graphwright.ir.values import END
from graphwright.ir.view import view
from torch import nn

aten = torch.ops.aten


def trace(function, *inputs, dynamic=None):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.arange(8.0).reshape(2, 4))

        def forward(self, *args):
            return function(self.weight, *args)

    program = torch.export.export(Module(), inputs, dynamic_shapes=dynamic)
    return program.module(check_guards=False)


def root(function, *inputs, **options):
    return FxView(trace(function, *inputs, **options)).outputs[0]


X = torch.randn(3, 4)


def test_python_numbers_are_exact_constants_of_their_call():
    value = root(lambda w, x: x * 0.1, X)
    assert (value.op, value.inputs[0].op, value.inputs[1].op) == ("mul", "input", "const")
    assert value.inputs[1].const == 0.1  # not rounded to single precision
    assert value.inputs[1].users == [value]


def test_parameters_are_lent_not_copied():
    module = trace(lambda w, x: x @ w.T, X)
    weight = next(v for v in FxView(module) if v.op == "const")
    assert np.shares_memory(weight.const, module.weight.detach().numpy())
    assert (weight.shape, weight.dtype) == ((2, 4), "float32")


@pytest.mark.parametrize(
    ("function", "op", "attrs"),
    [
        (lambda w, x: x.transpose(-1, -2), "transpose", {"perm": (1, 0)}),
        (lambda w, x: x.t(), "transpose", {"perm": (1, 0)}),
        (lambda w, x: x[:, -3:-1], "slice", {"axis": 1, "start": 1, "end": 3, "step": 1}),
        (lambda w, x: x.unbind(1)[2], "select", {"axis": 1, "index": 2}),
        (lambda w, x: x.split([1, 3], -1)[1], "split", {"axis": 1, "sizes": (1, 3)}),
        (lambda w, x: x.chunk(2, -1)[1], "split", {"axis": 1, "sizes": (2, 2)}),
        (lambda w, x: x.flatten(), "reshape", {"shape": (12,)}),
        (lambda w, x: x.mean(-1, keepdim=True), "mean", {"axes": (1,), "keepdim": True}),
        (lambda w, x: x.to(torch.float16), "cast", {"to": "float16"}),
        (lambda w, x: x.to(torch.float32), "identity", {}),
        (lambda w, x: x.masked_fill(x > 0, 1.0), "where", {}),
        (lambda w, x: torch.nn.functional.softmax(x, -1, dtype=torch.float64), "aten.softmax.int", None),
        (lambda w, x: torch.add(x, x, alpha=2), "aten.add.Tensor", {"alpha": 2}),
        (lambda w, x: x.roll(1, 0), "aten.roll.default", None),
    ],
)
def test_arguments_become_canonical_attributes(function, op, attrs):
    value = root(function, X)
    assert value.op == op
    assert attrs is None or dict(value.attrs) == attrs


def test_a_call_with_several_results_is_a_value_each():
    graph = FxView(trace(lambda w, x: x.split([1, 3], -1), X))
    assert [(v.op, v.index, v.shape) for v in graph.outputs] == [("split", 0, (3, 1)), ("split", 1, (3, 3))]
    assert graph.inputs[0].users == graph.outputs


def test_writing_over_a_tensor_that_others_see_is_not_an_addition():
    def shared(w, x):
        y = x * 2
        z = y.exp()
        y.add_(1)
        return y, z

    def owned(w, x):
        return (x * 2).add_(1)

    assert root(shared, X).op == "aten.add_.Tensor"
    assert root(owned, X).op == "add"


def test_sizes_are_dimensions_where_they_are_data_and_none_where_they_are_attributes():
    dynamic = {"args": ({0: torch.export.Dim("n", min=3, max=50)},)}
    graph = FxView(trace(lambda w, x: (torch.arange(x.shape[0]), x[: x.shape[0] - 1]), X, dynamic=dynamic))
    numbers, cut = graph.outputs
    assert [v.op for v in numbers.inputs] == ["const", "dim", "const"]
    assert (numbers.inputs[1].inputs[0].op, dict(numbers.inputs[1].attrs)) == ("input", {"axis": 0})
    assert dict(cut.attrs) == {"axis": 0, "start": 0, "end": None, "step": 1}
    assert root(lambda w, x: x[1:], X, dynamic=dynamic).attrs["end"] == END


def test_symbols_bear_the_programs_names():
    value = view(zoo.fx_program("bert")).outputs[0]
    assert value.shape[:2] == ("batch", "length")


def test_a_clone_shares_weights_and_nothing_else():
    program = zoo.fx_program("nanogpt")
    twin = program.clone()
    before, original = program.fingerprint(), [(n, p.data_ptr()) for n, p in program.graph.named_parameters()]
    assert [(n, p.data_ptr()) for n, p in twin.graph.named_parameters()] == original

    graph = twin.graph.graph
    weight = next(node for node in graph.nodes if node.op == "get_attr")
    zeros = torch.zeros_like(fx.attribute(twin.graph, weight.target))
    fx.replace_tensor(twin.graph, weight, nn.Parameter(zeros))
    graph.erase_node(graph.output_node())
    graph.output(())
    fx.prune(twin.graph)

    assert twin.fingerprint() != before
    assert program.fingerprint() == before
    assert [(n, p.data_ptr()) for n, p in program.graph.named_parameters()] == original


def test_sizes_found_out_in_a_clone_do_not_fix_the_originals():
    program = zoo.fx_program("nanogpt")
    twin, before = program.clone(), view(program).outputs[0].shape
    output = twin.graph.graph.output_node()
    (logits,) = output.args[0]
    eleven = fx.add_tensor(twin.graph, "eleven", torch.zeros(1, 11, 83), logits)  # the example's length
    fx.call(twin.graph.graph, aten.add.Tensor, logits, eleven, before=output)
    assert view(program).outputs[0].shape == before == ("batch", "length", 83)


def test_new_tensors_and_calls_carry_shapes_and_train():
    module = trace(lambda w, x: x @ w.T, X, dynamic={"args": ({0: torch.export.Dim("n", min=2, max=50)},)})
    output = module.graph.output_node()
    (product,) = output.args[0]
    scale = fx.add_tensor(module, "weight", nn.Parameter(torch.tensor([2.0, 3.0])), product)
    scaled = fx.call(module.graph, aten.mul.Tensor, product, scale, before=output)
    output.args = ((scaled,),)
    module.recompile()

    value = FxView(module).outputs[0]
    assert (value.op, value.dtype) == ("mul", "float32")
    assert (isinstance(value.shape[0], str), value.shape[1]) == (True, 2)
    assert value.inputs[1].name == "weight_1"
    module(torch.randn(5, 4)).sum().backward()
    assert module.weight_1.grad is not None
    torch.testing.assert_close(module(X), X @ module.weight.T * torch.tensor([2.0, 3.0]))


def test_shapes_follow_a_smaller_tensor_and_what_is_unused_goes():
    module = trace(lambda w, x: (torch.relu(x @ w.T), x.exp())[0], X)
    weight = next(node for node in module.graph.nodes if node.op == "get_attr")
    fx.replace_tensor(module, weight, nn.Parameter(module.weight[:1].detach()))
    fx.propagate(module)
    assert FxView(module).outputs[0].shape == (3, 1)

    module.unused = nn.Parameter(torch.zeros(1))
    calls = len(module.graph.nodes)
    removed = fx.prune(module)
    assert removed == 1 + calls - len(module.graph.nodes)
    assert [name for name, _ in module.named_parameters()] == ["weight"]
    assert module(X).shape == (3, 1)

"""What torch's exporter is given is what torch.export would trace of the same graph."""

import operator

import graphwright as gw
import pytest
import torch
import zoo
from graphwright.ir.errors import GraphwrightError
from graphwright.ir.fx.graph import TRACED, call
from graphwright.ir.fx.lifted import lifted
from graphwright.ir.inputs.probe import feed
from torch import nn
from torch.export.graph_signature import InputKind

aten = torch.ops.aten
KINDS = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer", InputKind.USER_INPUT: "input"}
X = torch.randn(3, 4)


class Shared(nn.Module):
    """One weight that is read twice, a buffer, and a branch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]))
        self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        x = self.last(self.first(x) * self.scale)
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y * 2, (x,))


def captured(module, *tensors):
    return gw.trace(module, inputs=list(tensors))


def run(program, *tensors):
    with torch.no_grad():
        return program.module(check_guards=False)(*tensors)


def told(program):
    """Kind, path and shape of each input, in order."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [
        (KINDS[spec.kind], spec.target, str(tuple(nodes[spec.arg.name].meta["val"].shape)))
        for spec in program.graph_signature.input_specs
    ]


def test_tensors_come_first_in_the_modules_order_and_branches_stay():
    module = Shared().eval()
    program = captured(module, X)
    program = lifted(program.graph, program.inputs, program.symbols)
    assert [each[:2] for each in told(program)] == [
        ("parameter", "last.bias"),
        ("parameter", "first.weight"),
        ("buffer", "scale"),
        ("input", None),
    ]
    assert program.state_dict["first.weight"].data_ptr() == module.first.weight.data_ptr()
    for x in (X, -X, torch.randn(7, 4)):
        torch.testing.assert_close(run(program, x)[0], module(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_it_computes_what_the_graph_does(name):
    program = zoo.fx_program(name)
    made = lifted(program.graph, program.inputs, program.symbols)
    assert sum(kind == "input" for kind, *_ in told(made)) == len(program.inputs)
    sizes = {symbol: max(low, 5) for symbol, (low, _) in program.symbols.items()}
    given = [torch.from_numpy(array) for array in feed(program, sizes).values()]
    with torch.no_grad():
        expected = program.graph(*given)
    for one, other in zip(run(made, *given), expected, strict=True):
        assert torch.equal(one, other)


def test_nodes_that_a_rewrite_left_without_a_shape_get_theirs():
    program = captured(nn.Linear(4, 4).eval(), X)
    graph = program.graph
    (output,) = graph.graph.output_node().args[0]
    with graph.graph.inserting_after(output):
        wide = graph.graph.call_function(aten.cat.default, ([output, output], -1))
    graph.graph.output_node().args = ((wide,),)
    made = lifted(graph, program.inputs, program.symbols)
    (given,) = made.graph.output_node().args[0]
    assert str(tuple(given.meta["val"].shape)).endswith(", 8)")
    assert run(made, X)[0].shape == (3, 8)


def test_what_does_not_fit_any_more_is_named():
    program = captured(nn.Linear(4, 4).eval(), X)
    graph = program.graph
    (output,) = graph.graph.output_node().args[0]
    with graph.graph.inserting_after(output):
        wrong = graph.graph.call_function(aten.reshape.default, (output, [7, 3]))
    graph.graph.output_node().args = ((wrong,),)
    with pytest.raises(GraphwrightError, match=r"reshape.* does not fit any more"):
        lifted(graph, program.inputs, program.symbols)


def test_the_graph_is_left_as_it_was():
    program = captured(Shared().eval(), X)
    graph = program.graph
    before = str(graph.graph)
    made = lifted(graph, program.inputs, program.symbols)
    made.graph.erase_node(made.graph.output_node())
    assert str(graph.graph) == before


def test_an_input_that_is_given_out_twice():
    program = captured(nn.Linear(4, 4).eval(), X)
    graph = program.graph
    x = graph.graph.find_nodes(op="placeholder")[0]
    node = call(graph.graph, aten.add.Tensor, x, 0, before=graph.graph.output_node())
    graph.graph.output_node().args = ((x, x, node),)
    graph.recompile()
    for one in run(lifted(graph, program.inputs, program.symbols), X):
        assert torch.equal(one, X)


def test_what_a_rewrite_stated_is_stated_at_other_sizes_than_the_example_s():
    """Three rows are one block of eight, and torch takes what is one there for one everywhere."""
    program = captured(nn.Linear(4, 4).eval(), X)
    graph = program.graph
    end = graph.graph.output_node()
    x = graph.graph.find_nodes(op="placeholder")[0]
    (output,) = end.args[0]
    rows = call(graph.graph, aten.sym_size.int, x, 0, before=end)
    blocks = call(
        graph.graph, operator.floordiv, call(graph.graph, operator.add, rows, 7, before=end), 8, before=end
    )
    one = call(graph.graph, aten.new_ones.default, output, [blocks, 1], before=end)
    other = call(graph.graph, aten.new_ones.default, output, [blocks, 4], before=end)
    both = call(graph.graph, aten.add.Tensor, one, other, before=end)
    assert both.meta["val"].shape[0] == 1
    end.args = ((both,),)
    graph.recompile()
    (given,) = lifted(program.clone().graph, program.inputs, program.symbols).graph.output_node().args[0]
    assert str(given.meta["val"].shape[0]).count("//8") == 1
    assert both.meta["val"].shape[0] == 1


def test_sizes_with_narrow_bounds_are_told_apart_as_well():
    """Of two that were alike, torch would make one symbol."""
    program = gw.trace(Two().eval(), inputs={"x": torch.randn(3, 4), "y": torch.randn(5, 4)})
    bounds = dict.fromkeys(program.symbols, (1, 8))
    assert len(bounds) == 3
    graph = program.graph
    for node in graph.graph.nodes:
        node.meta.pop(TRACED, None)
    made = lifted(graph, program.inputs, bounds)
    (given,) = made.graph.output_node().args[0]
    assert len({str(s) for s in given.meta["val"].shape}) == 2
    x, y = torch.randn(2, 4), torch.randn(7, 4)
    assert run(made, x, y)[0].shape == (2, 7)


class Two(nn.Module):
    """Two lengths that have nothing to do with each other."""

    def forward(self, x, y):
        return x @ y.T

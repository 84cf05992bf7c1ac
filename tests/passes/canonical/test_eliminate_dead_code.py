"""eliminate-dead-code: what nothing reads goes, what a subgraph or a caller reads stays."""

import numpy as np
import torch
from canonical import F32, X3, Y3, after, calls
from handmade import operators, parsed

aten = torch.ops.aten


def test_dead_calls_and_parameters_go(redundant):
    program = redundant.clone()
    program.graph.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
    graph = program.graph.graph
    with graph.inserting_before(graph.output_node()):
        graph.call_function(aten.neg.default, (graph.get_attr("unused"),))
        graph.call_function(aten.dropout.default, (graph.call_function(aten.ones.default, ([2],)), 0.5, True))
    program.graph.recompile()
    found = after("eliminate-dead-code", program)
    assert aten.neg.default not in calls(found)
    assert [name for name, _ in found.clone().graph.named_parameters()] == ["proj.weight", "proj.bias"]


def test_what_a_subgraph_uses_stays():
    program = parsed(
        """
        outer = Relu(x)
        idle = Neg(x)
        y = If(flag) <
            then_branch = yes () => (float[batch,length,4] a) { dead = Abs(outer) a = Add(outer, one) },
            else_branch = no () => (float[batch,length,4] b) { b = Identity(x) }
        >
        """,
        X3,
        Y3,
        {"flag": np.array(True), "one": np.ones(4, F32), "two": np.ones(4, F32)},
    )
    program = after("eliminate-dead-code", program)
    assert operators(program) == ["Relu", "If"]
    branch = program.graph.graph[1].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Add"]
    assert set(program.graph.graph.initializers) == {"flag", "one"}


def test_inputs_stay_used_or_not():
    program = parsed("y = Relu(x)", f"{X3}, float[4] ignored", Y3)
    after("eliminate-dead-code", program, status="no change")

"""PyTorch code written into an fx graph: it is traced over the graph's own symbolic shapes.

What is there already is not written again, and sizes are read off inputs. So layers share what depends on
lengths and masks alone, and it can be computed without the layers before them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, Node, map_arg
from torch.fx.experimental.proxy_tensor import make_fx

from ....ir.fx.graph import fake_mode

_SIZE = torch.ops.aten.sym_size.int


def splice(function: Callable[..., Any], operands: Sequence[Node], before: Node) -> Node:
    """What a function of tensors gives, as ATen operators before a node.

    Args:
        function: of as many tensors, to one tensor; sizes that it reads are symbols, so that it must not
            branch on them.
    """
    graph = before.graph
    mode = fake_mode(graph)
    given = [node.meta["val"] for node in operands]
    with mode, mode.shape_env.suppress_guards(), enable_python_dispatcher(), torch.no_grad():
        traced = make_fx(function, pre_dispatch=True)(*given).graph
    known: dict[Node, Any] = dict(zip(traced.find_nodes(op="placeholder"), operands, strict=True))
    sizes = _sizes(graph)
    with graph.inserting_before(before):
        for node in traced.nodes:
            if node.op == "call_function":
                known[node] = _found(node, known, sizes, before) or graph.node_copy(node, known.__getitem__)
            elif node.op == "get_attr":
                raise AssertionError(f"{function} holds a tensor that is none of its operands")
    (end,) = traced.find_nodes(op="output")
    return known[end.args[0]]


def _sizes(graph: Graph) -> dict[str, Node]:
    """The nodes that read symbols off inputs."""
    found: dict[str, Node] = {}
    for node in graph.find_nodes(op="call_function", target=_SIZE):
        if node.args[0].op == "placeholder":
            found.setdefault(str(node.meta["val"]), node)
    return found


def _found(node: Node, known: Mapping[Node, Any], sizes: Mapping[str, Node], before: Node) -> Node | None:
    """A node that stands in the graph already and gives the same."""
    if node.target is _SIZE and (size := sizes.get(str(node.meta["val"]))) is not None and size < before:
        return size
    args, kwargs = map_arg((node.args, dict(node.kwargs)), known.__getitem__)
    readers = known[node.all_input_nodes[0]].users if node.all_input_nodes else ()
    for other in readers:
        if other.target is node.target and other < before and (other.args, other.kwargs) == (args, kwargs):
            return other
    return None

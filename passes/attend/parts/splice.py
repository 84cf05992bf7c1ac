"""PyTorch code written into an fx graph: it is traced over the graph's own symbolic shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from ....ir.fx.graph import fake_mode


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
    with graph.inserting_before(before):
        for node in traced.nodes:
            if node.op == "call_function":
                known[node] = graph.node_copy(node, known.__getitem__)
            elif node.op == "get_attr":
                raise AssertionError(f"{function} holds a tensor that is none of its operands")
    (end,) = traced.find_nodes(op="output")
    return known[end.args[0]]

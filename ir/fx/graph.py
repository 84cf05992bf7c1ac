"""The view over a torch.fx graph of ATen operators, and what a pass needs to rewrite one."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves

from ..errors import GraphwrightError
from ..ops.shapes import infer, infer_dtype
from ..spec import InputSpec
from ..values import Dim, GraphValue, GraphView
from . import operators as fx_ops

TRACED = "graphwright.traced"  # of a node's meta: it gives what torch.export found, on this example


class FxView(GraphView):
    """The values of a GraphModule from torch.export.

    Parameters, buffers and the Python numbers among a call's operands are "const"; a number's native is
    (node, position). Sizes appear as "dim" where they are data, and as None where they are attributes.

    Args:
        gm: the graph module.
        inputs: the program's input specs, which give symbols their names ("batch"); without them symbols
            keep torch.export's names ("s43").
    """

    dialect = "fx"

    def __init__(self, gm: GraphModule, inputs: Sequence[InputSpec] = ()) -> None:
        super().__init__()
        self._gm = gm
        self._specs = inputs
        self._symbols = symbol_names(gm.graph, inputs)
        self._printed: dict[Any, str] = {}
        for node in gm.graph.nodes:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        if node.op == "placeholder":
            place = len(self.inputs)
            self.inputs.append(self._enter(node, "input", (), {}))
            if place < len(self._specs):  # a node may not be called "input", an input may
                self.inputs[-1].name = self._specs[place].name
        elif node.op == "get_attr":
            target = attribute(self._gm, str(node.target))
            if isinstance(target, torch.Tensor):
                value = GraphValue(node, node.name, "const", load=lambda: to_numpy(target), tensor=target)
                value.shape, value.dtype = tuple(target.shape), str(target.dtype).removeprefix("torch.")
                self.add(value)
        elif node.op == "output":
            flat = torch.utils._pytree.tree_leaves(node.args)
            values = [self._operand(node, i, a) for i, a in enumerate(flat)]
            self.outputs.extend(value for value in values if value is not None)
        elif node.op == "call_module" and node.target == "_guards_fn":
            return
        elif node.target is operator.getitem and fx_ops.many(node.args[0]):  # type: ignore[arg-type]
            self._piece(node)
        elif not (fx_ops.packet(node) in fx_ops.NOT_DATA or fx_ops.symbolic(node) or fx_ops.many(node)):
            self._enter(node, *fx_ops.canonical(node))

    def _piece(self, node: Node) -> None:
        """A getitem: one result of the call before it."""
        source: Any = node.args[0]
        index: Any = node.args[1]
        op, operands, attrs = fx_ops.canonical(source)
        if op == "select":  # unbind
            self._enter(node, op, operands, {**attrs, "index": index})
        elif op in ("aten.max.dim", "aten.min.dim") and index == 0:  # beside it, where that lies
            rank = len(source.args[0].meta["val"].shape)
            kept = {"axes": (attrs["dim"] % rank,), "keepdim": attrs.get("keepdim", False)}
            self._enter(node, op.split(".")[1], operands, kept)
        else:
            self._enter(node, op, operands, attrs, index)

    def _enter(
        self, node: Node, op: str, operands: Sequence[Any], attrs: Mapping[str, Any], index: int = 0
    ) -> GraphValue:
        inputs = [self._operand(node, i, a) for i, a in enumerate(operands)]
        while inputs and inputs[-1] is None:
            inputs.pop()
        value = node.meta.get("val")
        shape = getattr(value, "shape", None)
        dims = None if shape is None else tuple(self._dim(d) for d in shape)
        dtype = fx_ops.dtype(node)
        if value is None and op != "input":
            dims, dtype = infer(op, inputs, attrs, index), infer_dtype(op, inputs, attrs)
        if fx_ops.symbolic(node):
            dims, dtype = (), "int64"
        return self.add(GraphValue(node, node.name, op, inputs, attrs, index, dims, dtype))

    def _operand(self, user: Node, position: int, argument: Any) -> GraphValue | None:
        """The value of an operand: entered already, a size computed on the way, or a Python number."""
        if argument is None:
            return None
        if not isinstance(argument, Node):
            number = np.asarray(argument)
            key = (user, position)
            return self.add(
                GraphValue(
                    key, f"{user.name}.{position}", "const",
                    shape=(), dtype=str(number.dtype), load=lambda: number,
                )
            )  # fmt: skip
        if argument in self:
            return self.of(argument)
        return self._enter(argument, *fx_ops.canonical(argument))

    def _dim(self, size: Any) -> Dim:
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression.is_Integer:  # a symbol that the trace found to be one number
            return int(expression)
        if expression not in self._printed:
            self._printed[expression] = str(expression.subs(self._symbols))
        return self._printed[expression]


def symbol_names(graph: Graph, inputs: Sequence[InputSpec]) -> dict[Any, Any]:
    """torch.export's symbols to the program's: {s43: batch}, as sympy symbols, read off the inputs."""
    import sympy

    names: dict[Any, Any] = {}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, inputs, strict=False):
        for size, name in zip(getattr(node.meta.get("val"), "shape", ()), spec.shape, strict=False):
            if isinstance(size, torch.SymInt) and isinstance(name, str) and size.node.expr.is_Symbol:
                names[size.node.expr] = sympy.Symbol(name)
    return names


def attribute(gm: torch.nn.Module, target: str) -> Any:
    """What a get_attr node names: a parameter, a buffer or a submodule."""
    found: Any = gm
    for part in target.split("."):
        found = getattr(found, part)
    return found


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A CPU tensor's memory as an array; not a copy."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def clone(gm: GraphModule) -> GraphModule:
    """A module with its own graph over the same parameters and buffers.

    Editing its graph, or putting another parameter in place of one, leaves the original as it was;
    writing into a parameter's memory does not.
    """
    graph = copy.deepcopy(gm.graph)
    twin = GraphModule(gm, graph)
    twin.meta = dict(gm.meta)
    for name in {str(n.target): None for n in graph.nodes if n.op == "get_attr"}:
        target = attribute(gm, name)
        if isinstance(target, GraphModule):
            set_attribute(twin, name, clone(target))
    return twin


def set_attribute(gm: GraphModule, target: str, value: Any) -> None:
    """Put a parameter, buffer or submodule at a dotted path, making the modules on the way."""
    *path, leaf = target.split(".")
    module: torch.nn.Module = gm
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        module._parameters.pop(leaf, None)
        if leaf in module._buffers:
            module._buffers[leaf] = value
        else:
            module.register_buffer(leaf, value)
    else:
        if isinstance(value, torch.nn.Parameter):
            module._buffers.pop(leaf, None)
        setattr(module, leaf, value)


def add_tensor(gm: GraphModule, name: str, tensor: torch.Tensor, before: Node) -> Node:
    """A new parameter or buffer and the get_attr node that reads it.

    Args:
        name: the dotted path wanted; a number is put after it where it is taken.
        before: the node to stand before.
    """
    path, number = name, 0
    while _taken(gm, path):
        number += 1
        path = f"{name}_{number}"
    set_attribute(gm, path, tensor)
    with gm.graph.inserting_before(before):
        node = gm.graph.get_attr(path)
    node.meta["val"] = fake_tensor(gm.graph, tensor)
    return node


def replace_tensor(gm: GraphModule, node: Node, tensor: torch.Tensor) -> None:
    """Puts another tensor, perhaps of another shape, in place of the one that a get_attr node reads.

    Every node that reads the same path reads the new one; call `propagate` when shapes changed.
    """
    set_attribute(gm, str(node.target), tensor)
    for reader in gm.graph.find_nodes(op="get_attr"):
        if reader.target == node.target:
            reader.meta["val"] = fake_tensor(gm.graph, tensor)


def call(graph: Graph, target: Any, *args: Any, before: Node, **kwargs: Any) -> Node:
    """A new call before another node, with its result's shape and dtype computed from its operands'.

    Args:
        target: an ATen overload, torch.ops.aten.mul.Tensor.
        args, kwargs: nodes and plain values.
    """
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    restate(graph, node)
    return node


def propagate(gm: GraphModule, changed: Collection[Node] | None = None) -> None:
    """Recomputes shapes from the inputs' and the tensors', after sizes were changed.

    Args:
        changed: the nodes whose tensor or arguments are others; what reads none whose shape became another
            keeps its own. By default all are computed.

    Raises:
        GraphwrightError: operands do not go together, named with the node.
    """
    others = set(gm.graph.nodes if changed is None else changed)
    for node in gm.graph.nodes:
        if node not in others and others.isdisjoint(node.all_input_nodes):
            continue
        before = _stated(node)
        if node.op == "get_attr" and isinstance(tensor := attribute(gm, str(node.target)), torch.Tensor):
            node.meta["val"] = fake_tensor(gm.graph, tensor)
        elif node.op == "call_function":
            try:
                restate(gm.graph, node)
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                raise GraphwrightError(
                    f"{node.name} ({node.target}) does not fit any more: {reason}"
                ) from error
        if _stated(node) != before:
            others.add(node)


def _stated(node: Node) -> str:
    """What is known of a node's result, to be compared: symbols are by what they are, which asks nothing."""
    leaves = tree_leaves(node.meta.get("val"))
    return repr([(v.shape, v.stride(), v.dtype) if isinstance(v, torch.Tensor) else v for v in leaves])


def prune(gm: GraphModule) -> int:
    """Removes calls that no output needs and tensors that no node reads; returns how many of both."""
    before = len(gm.graph.nodes)
    # What draws random numbers counts as having effects, so that others keep their sequence: not here.
    gm.graph.eliminate_dead_code(lambda node: node.is_impure(impure_random=False))
    count = before - len(gm.graph.nodes)
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    tensors = [*gm.named_parameters(remove_duplicate=False), *gm.named_buffers(remove_duplicate=False)]
    for path, _ in tensors:
        if path not in used:
            owner, _, leaf = path.rpartition(".")
            delattr(gm.get_submodule(owner), leaf)
            count += 1
    gm.recompile()
    return count


def _taken(gm: GraphModule, path: str) -> bool:
    module: Any = gm
    for part in path.split("."):
        if not hasattr(module, part):
            return False
        module = getattr(module, part)
    return True


def fake_mode(graph: Graph) -> Any:
    """The fake-tensor mode that torch.export traced the graph under: it knows the symbols."""
    for node in graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            return mode
    raise GraphwrightError("the graph carries no shapes: capture it with torch.export")


def fake_tensor(graph: Graph, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's shape and dtype without its data."""
    mode = fake_mode(graph)
    with mode:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def restate(graph: Graph, node: Node) -> None:
    """Computes a call's shape and dtype anew from its operands'. torch asks the traced example whether two
    sizes are alike, and whether one is 1, which may be chance; `lifted` asks another one."""
    node.meta.pop(TRACED, None)
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda n: n.meta.get("val"))
    target: Any = node.target
    if "fake_quantize" in str(target):  # without a rule for fake tensors; like its first operand
        node.meta["val"] = args[0]
        return
    mode = fake_mode(graph)
    # Clones share the symbols: what is found out about one's sizes must not fix the others'. The Python
    # dispatcher keeps symbols where an operator's C++ code would put the traced example's numbers (pad).
    with mode, mode.shape_env.suppress_guards(), enable_python_dispatcher(), torch.no_grad():
        node.meta["val"] = target(*args, **kwargs)

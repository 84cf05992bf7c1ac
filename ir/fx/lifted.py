"""A graph as the ExportedProgram that torch's exporter takes, without tracing it once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, cast

import torch
from torch._export.verifier import TrainingIRVerifier
from torch.export.exported_program import ExportedProgram, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.export.graph_signature import InputSpec as Given
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_structure

from ..spec import InputSpec
from .graph import TRACED, attribute, fake_mode, propagate
from .rebound import rebound

# What symbols stand for while shapes are stated anew, the largest that fits: texts of several blocks each.
_SIZES = (2003, 2011, 2017, 2027, 1009, 1013, 1019, 509, 503, 499, 251, 241, 239, 127, 113, 109, 61, 59, 53)
_MOST = 1 << 29  # numbers of an input, for which memory is asked and never touched


def lifted(
    gm: GraphModule,
    specs: Sequence[InputSpec],
    symbols: Mapping[str, tuple[int, int]],
    before: GraphModule | None = None,
) -> ExportedProgram:
    """The program of a graph: parameters and buffers become inputs ahead of its own, under their paths.

    torch.export would trace the graph to find the shapes that its nodes carry already: of a lowering, three
    quarters of the time. Where a rewrite stated some of them, all are stated anew, at sizes of which no two
    are alike: a text that was captured may be one block of what a pass cuts texts into.

    Args:
        gm: as torch.export captured it and passes rewrote it; functional. Its tensors are shared, and its
            nodes' shapes may become others.
        specs, symbols: of its program.
        before: the program's graph, where this one is a spelling of it: says whether a pass rewrote it.

    Raises:
        GraphwrightError: operands of a node that carries no shape do not go together.
    """
    calls = [node for node in (before or gm).graph.nodes if node.op == "call_function"]
    if any(TRACED not in node.meta for node in calls):
        rebound(gm, specs, symbols, _sizes(specs, symbols))
    propagate(gm, [node for node in gm.graph.nodes if node.op == "call_function" and "val" not in node.meta])
    graph, twins = Graph(), dict[Node, Node]()
    inputs, state = list[Given](), dict[str, torch.Tensor]()
    tensors = _tensors(gm)
    for path, readers in tensors.items():
        state[path] = tensor = attribute(gm, path)
        twin = graph.placeholder("p_" + path.replace(".", "_"))
        twin.meta = dict(readers[0].meta)
        twins.update(dict.fromkeys(readers, twin))
        learned = isinstance(tensor, torch.nn.Parameter)
        kind = InputKind.PARAMETER if learned else InputKind.BUFFER
        inputs.append(Given(kind, TensorArgument(twin.name), path, None if learned else True))
    for node in gm.graph.nodes:
        if node in twins:
            continue
        twins[node] = twin = graph.node_copy(node, twins.__getitem__)
        if node.op == "placeholder":
            inputs.append(Given(InputKind.USER_INPUT, TensorArgument(twin.name), None))
    given = cast(tuple[Node, ...], tuple(graph.output_node().args[0]))  # type: ignore[arg-type]
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in given]
    names = [spec.arg.name for spec in inputs if spec.kind == InputKind.USER_INPUT]
    called = ModuleCallSignature([], [], tree_structure((tuple(names), {})), tree_structure(given), names)
    return ExportedProgram(
        gm, graph, ExportGraphSignature(inputs, outputs), cast(dict[str, Any], state), _bounds(graph),
        [ModuleCallEntry("", called)], verifiers=[TrainingIRVerifier],
    )  # fmt: skip


def _sizes(specs: Sequence[InputSpec], symbols: Mapping[str, tuple[int, int]]) -> dict[str, int] | None:
    """Of each symbol, no two alike where that can be; None where an input would take too much memory."""
    sizes: dict[str, int] = {}
    for symbol, (low, high) in sorted(symbols.items(), key=lambda one: one[0] == "batch"):
        primes = reversed(_SIZES) if symbol == "batch" else _SIZES
        free = (n for n in (*primes, *range(min(_SIZES), 1, -1)) if n not in sizes.values())
        sizes[symbol] = next((n for n in free if low <= n <= high), high)
    numbers = (prod(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape) for spec in specs)
    return sizes if max(numbers, default=0) <= _MOST else None


def _bounds(graph: Graph) -> dict[Any, Any]:
    """What is known of each symbol that is an input's size: sympy symbol -> ValueRanges."""
    known = fake_mode(graph).shape_env.var_to_range
    sizes = [size for node in graph.find_nodes(op="placeholder") for size in node.meta["val"].shape]
    symbols = [size.node.expr for size in sizes if isinstance(size, torch.SymInt)]
    return {symbol: known[symbol] for symbol in symbols if symbol in known}


def _tensors(gm: GraphModule) -> dict[str, list[Node]]:
    """The nodes that read each tensor by its path, in the order in which a module lists its own."""
    readers: dict[str, list[Node]] = {}
    for node in gm.graph.find_nodes(op="get_attr"):
        if isinstance(attribute(gm, str(node.target)), torch.Tensor):
            readers.setdefault(str(node.target), []).append(node)
    listed = (*gm.named_parameters(remove_duplicate=False), *gm.named_buffers(remove_duplicate=False))
    order = dict.fromkeys([*(path for path, _ in listed if path in readers), *readers])
    return {path: readers[path] for path in order}

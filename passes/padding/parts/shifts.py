"""Operations that bring neighbouring tokens together, and so carry what padding holds into real tokens."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from .tokenwise import Axes

LAYOUT = frozenset({"Transpose", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast"})
SEQUENTIAL = frozenset({"Conv", "CumSum", "GRU", "LSTM", "Pad", "RNN", "Scan"})


def before_shifts(nodes: Iterable[ir.Node], axes: Axes) -> list[ir.Node]:
    """The token-wise nodes whose results a shift, a convolution or a recurrence reads, however far below.

    Such an operation has no mask, so it must find what the padding's own tokens give, not zeros: MobileBERT
    joins each word with its two neighbours. What a token gets from an attention or a softmax in between
    counts too: ConvBERT's convolutions read what the layers before them made of the padding.
    """
    inside = set(nodes)
    graph = next((node.graph for node in inside), None)
    pending = [
        node
        for node in graph or ()
        if any((node in inside or axes.is_token_value(out)) and _shifted(out, axes) for out in node.outputs)
    ]
    found: set[ir.Node] = set()
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            producers = (value.producer() for value in node.inputs if value is not None)
            pending += [producer for producer in producers if producer is not None]
    return [node for node in nodes if node in found]


def _shifted(value: ir.Value, axes: Axes) -> bool:
    """Whether a shift reads a token value, perhaps behind transposes and the like."""
    pending, seen = [value], {value}
    while pending:
        for user in pending.pop().consumers():
            if user.op_type in SEQUENTIAL and not _pointwise(user):
                return True
            if user.op_type == "Slice" and _part(user, axes):
                return True
            if user.op_type in LAYOUT:
                pending += [out for out in user.outputs if out not in seen]
                seen.update(user.outputs)
    return False


def _part(node: ir.Node, axes: Axes) -> bool:
    """Whether a Slice of token values takes some positions, neither all of them nor one."""
    dims = axes.dims(node.outputs[0])
    return (
        axes.is_token_value(node.inputs[0])
        and dims is not None
        and dims[0] == axes.batch
        and dims[1] not in (1, axes.length)
    )


def _pointwise(node: ir.Node) -> bool:
    """A convolution that looks at one position, and a Pad that adds features alone."""
    if node.op_type == "Conv":
        weight = node.inputs[1]
        return weight is not None and weight.shape is not None and all(n == 1 for n in list(weight.shape)[2:])
    if node.op_type != "Pad" or node.inputs[1] is None or any(node.inputs[3:]):
        return False
    pads = ir.convenience.get_const_tensor(node.inputs[1])
    if pads is None:
        return False
    sizes = pads.numpy().tolist()
    rank = len(sizes) // 2
    return not any(sizes[axis] or sizes[rank + axis] for axis in range(rank - 1))

"""Products written as bfloat16 computes them: both operands rounded to it and cast back, sums in float32.

Any executor of floats gives what a processor's own product in bfloat16 gives, up to the order of its sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from ....ir.onnx.graph import Editor
from ....ir.onnx.lazy import rounded
from ....ir.program import Program
from ..codes.decode import Decoder
from .layers import Group

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def write(program: Program, groups: Sequence[Group]) -> None:
    """Rewrites a program's products in place."""
    if program.dialect == "fx":
        _write_fx(program.graph, groups)
    else:
        _write_onnx(program.graph, groups)


def _write_onnx(model: ir.Model, groups: Sequence[Group]) -> None:
    editor = Editor(model)
    decoder = Decoder(editor)
    stored: dict[ir.Value, ir.Value] = {}

    def weight(value: ir.Value) -> ir.Value:
        """What a product reads in place of a weight, or of one that is turned first."""
        if value not in stored:
            node, tensor = value.producer(), ir.convenience.get_const_tensor(value)
            name = f"{value.name}.bfloat16"
            if tensor is not None:
                new = decoder.cast(editor.initializer(rounded(tensor, _BFLOAT16), name), _FLOAT)
                new.type, new.shape = value.type, value.shape
            else:
                assert node is not None
                assert node.inputs[0] is not None
                before, attrs = weight(node.inputs[0]), dict(node.attributes)
                turned = editor.node(node.op_type, [before], name, before=node, attrs=attrs, like=value)
                new = turned.outputs[0]
            stored[value] = new
        return stored[value]

    for group in groups:
        x, first = group.activation.native, group.layers[0].product.native.producer()
        rows = x
        for name, dtype in (("bfloat16", _BFLOAT16), ("float", _FLOAT)):
            cast = editor.node("Cast", [rows], f"{x.name}.{name}", before=first, attrs={"to": int(dtype)})
            rows = cast.outputs[0]
            rows.type, rows.shape = ir.TensorType(dtype), x.shape
        for layer in group.layers:
            node = layer.product.native.producer()
            node.replace_input_with(0, rows)
            if layer.weight.dtype == "float32":
                node.replace_input_with(1, weight(node.inputs[1]))
    editor.prune()


def _write_fx(gm: Any, groups: Sequence[Group]) -> None:
    import torch

    from ....ir.fx.graph import add_tensor, attribute, call, prune

    to = torch.ops.aten.to.dtype
    stored: dict[Any, Any] = {}

    def weight(node: Any) -> Any:
        """What a product reads in place of a weight, or of one that is turned first."""
        if node not in stored and node.op == "get_attr":
            half = attribute(gm, str(node.target)).detach().to(torch.bfloat16)
            parameter = torch.nn.Parameter(half, requires_grad=False)
            read = add_tensor(gm, f"{node.target}_bfloat16", parameter, node)
            stored[node] = call(gm.graph, to, read, torch.float32, before=node)
        elif node not in stored:
            before = weight(node.args[0])
            stored[node] = call(gm.graph, node.target, before, *node.args[1:], before=node, **node.kwargs)
        return stored[node]

    for group in groups:
        x, first = group.activation.native, group.layers[0].product.native
        half = call(gm.graph, to, x, torch.bfloat16, before=first)
        rows = call(gm.graph, to, half, torch.float32, before=first)
        for layer in group.layers:
            node, read = layer.product.native, layer.product.inputs[1]
            assert read is not None
            node.replace_input_with(x, rows)
            if layer.weight.dtype == "float32":
                node.replace_input_with(read.native, weight(read.native))
    prune(gm)

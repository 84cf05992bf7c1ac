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
from .factors import narrow, rounded_at
from .layers import Core, Group

_BFLOAT16, _FLOAT = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def write(program: Program, groups: Sequence[Group | Core]) -> None:
    """Rewrites a program's products in place."""
    writer = _Fx(program.graph) if program.dialect == "fx" else _Onnx(program.graph)
    for group in groups:
        if isinstance(group, Group):
            writer.layers(group)
            continue
        for product in group.products:
            for factor in product.inputs:
                assert factor is not None
                value, reader = rounded_at(product, factor)
                if not narrow(value):
                    writer.factor(value.native, reader.native)
    writer.prune()


class _Onnx:
    def __init__(self, model: ir.Model) -> None:
        self.editor = Editor(model)
        self.decoder = Decoder(self.editor)
        self.stored: dict[ir.Value, ir.Value] = {}
        self.prune = self.editor.prune

    def layers(self, group: Group) -> None:
        x = group.activation.native
        rows = self._rounded(x, group.layers[0].product.native.producer())
        for layer in group.layers:
            node = layer.product.native.producer()
            node.replace_input_with(0, rows)
            if layer.weight.dtype == "float32":
                node.replace_input_with(1, self._weight(node.inputs[1]))

    def factor(self, value: ir.Value, reader: ir.Value) -> None:
        """Rounds what one node reads."""
        node = reader.producer()
        assert node is not None
        rows = self._rounded(value, node)
        for index, read in enumerate(node.inputs):
            if read is value:
                node.replace_input_with(index, rows)

    def _rounded(self, x: ir.Value, before: ir.Node) -> ir.Value:
        rows = x
        for name, dtype in (("bfloat16", _BFLOAT16), ("float", _FLOAT)):
            cast = self.editor.node(
                "Cast", [rows], f"{x.name}.{name}", before=before, attrs={"to": int(dtype)}
            )
            rows = cast.outputs[0]
            rows.type, rows.shape = ir.TensorType(dtype), x.shape
        return rows

    def _weight(self, value: ir.Value) -> ir.Value:
        """What a product reads in place of a weight, or of one that is turned first."""
        if value not in self.stored:
            node, tensor = value.producer(), ir.convenience.get_const_tensor(value)
            name = f"{value.name}.bfloat16"
            if tensor is not None:
                new = self.decoder.cast(self.editor.initializer(rounded(tensor, _BFLOAT16), name), _FLOAT)
                new.type, new.shape = value.type, value.shape
            else:
                assert node is not None
                assert node.inputs[0] is not None
                before, attrs = self._weight(node.inputs[0]), dict(node.attributes)
                turned = self.editor.node(node.op_type, [before], name, before=node, attrs=attrs, like=value)
                new = turned.outputs[0]
            self.stored[value] = new
        return self.stored[value]


class _Fx:
    def __init__(self, gm: Any) -> None:
        self.gm = gm
        self.stored: dict[Any, Any] = {}

    def prune(self) -> None:
        from ....ir.fx.graph import prune

        prune(self.gm)

    def layers(self, group: Group) -> None:
        x = group.activation.native
        rows = self._rounded(x, group.layers[0].product.native)
        for layer in group.layers:
            node, read = layer.product.native, layer.product.inputs[1]
            assert read is not None
            node.replace_input_with(x, rows)
            if layer.weight.dtype == "float32":
                node.replace_input_with(read.native, self._weight(read.native))

    def factor(self, value: Any, reader: Any) -> None:
        """Rounds what one node reads."""
        reader.replace_input_with(value, self._rounded(value, reader))

    def _rounded(self, x: Any, before: Any) -> Any:
        import torch

        half = self._call(torch.ops.aten.to.dtype, x, torch.bfloat16, before=before)
        return self._call(torch.ops.aten.to.dtype, half, torch.float32, before=before)

    def _call(self, target: Any, *arguments: Any, before: Any, **keywords: Any) -> Any:
        from ....ir.fx.graph import call

        return call(self.gm.graph, target, *arguments, before=before, **keywords)

    def _weight(self, node: Any) -> Any:
        """What a product reads in place of a weight, or of one that is turned first."""
        import torch

        from ....ir.fx.graph import add_tensor, attribute

        if node not in self.stored and node.op == "get_attr":
            half = attribute(self.gm, str(node.target)).detach().to(torch.bfloat16)
            parameter = torch.nn.Parameter(half, requires_grad=False)
            read = add_tensor(self.gm, f"{node.target}_bfloat16", parameter, node)
            self.stored[node] = self._call(torch.ops.aten.to.dtype, read, torch.float32, before=node)
        elif node not in self.stored:
            before = self._weight(node.args[0])
            self.stored[node] = self._call(node.target, before, *node.args[1:], before=node, **node.kwargs)
        return self.stored[node]

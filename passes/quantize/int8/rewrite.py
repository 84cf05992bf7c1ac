"""Putting one site in int8: its activation quantized once, its products in integers.

"tensor": DynamicQuantizeLinear (ONNX, opset 11) maps [min(x, 0), max(x, 0)] of the whole tensor onto
[0, 255]; com.microsoft MatMulIntegerToFloat multiplies, rescales and adds the bias in one go; com.microsoft
QAttention is Attention with that product inside.

"static": QuantizeLinear does the same with a scale and a zero point that calibration found.

"token" divides each row by its largest magnitude, maps [-1, 1] onto [1, 255], and multiplies the product's
row by it after. That changes nothing but rounding, (x / r) W r = x W, and gives every token the whole range
of the integers: the per-token scales of ZeroQuant (Yao et al., 2022, arXiv:2206.01861, section 4.1) from
standard operators.

With "static" and "token" a row's integers follow from that row alone; with "tensor" from all the rows of a
call, so that a text's vector depends on the texts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from ....ir.onnx.graph import Editor
from ....ir.program import Program
from ..codes.affine import Affine
from . import standard
from .biases import reclaim
from .hidden_rows import needing_guard
from .sites import Product, Site
from .weights import quantize

Rung = Literal["static", "tensor", "token", "bfloat16", "float"]
Form = Literal["qdq", "kernels"]
MICROSOFT = "com.microsoft"
SMALLEST_ROW = np.float32(1e-30)  # a row of zeros is divided by this, and stays zero
# Of a row divided by that.
ROW_SCALE, ROW_ZERO = np.float32(1 / 127), np.uint8(128)


@dataclass(frozen=True)
class Static:
    """What "static" needs: each activation's mapping onto 0 to 255, by the name of the value.

    per_channel: a scale for each output feature of a weight, or one for all.
    form: "qdq" writes QuantizeLinear, DequantizeLinear and the float product, which a runtime fuses to the
    kernels of "kernels".
    """

    mappings: Mapping[str, Affine] = field(default_factory=dict)
    form: Form = "qdq"
    per_channel: bool = True


class Int8Writer:
    """Rewrites sites of one program's graph. A weight that several products share is quantized once.

    Args:
        model: edited in place.
        limit: the largest |q| of a weight.
    """

    def __init__(self, model: ir.Model, limit: int, static: Static | None = None) -> None:
        self.editor, self.limit, self.static = Editor(model), limit, static or Static()
        self.weights: dict[tuple[ir.Value, bool], tuple[ir.Value, ir.Value]] = {}
        self.constants: dict[str, ir.Value] = {}
        self._largest: dict[ir.Value, ir.Value] = {}  # of rows that are sliced

    def write(self, site: Site, rung: Rung, guard: bool = False) -> None:
        """Rewrite one site in place.

        Args:
            rung: "static" (a scale from calibration), "tensor" (one found at run time), "token" (one for each
                row) or "float" (left as is).
            guard: read NaN as 0 (hidden_rows.py says where it comes from); for "tensor", which alone spreads
                NaN to other rows.

        Raises:
            WeightError: a weight has NaN or infinity.
        """
        if rung == "float":
            return
        x, rows = site.activation, None
        first = site.products[0].node
        if rung == "static":
            return self._static(site, first)
        if guard:
            x = self._without_nan(x, first)
        if rung == "token":
            rows = self._rows(x, first)
            x = self._node("Div", [x, rows], f"{x.name}.by_row", first, like=x)
            scale, zero = self._constant("row_scale", ROW_SCALE), self._constant("row_zero_point", ROW_ZERO)
            quantized = self._mapped(x, scale, zero, first)
        else:
            quantized = self._quantized(x, first)
        for product in site.products:
            self._attention(product, quantized) if product.attention else self._product(
                product, quantized, rows
            )

    def _static(self, site: Site, first: ir.Node) -> None:
        x = site.activation
        mapping = self.static.mappings[str(x.name)]
        scale = self.editor.initializer(np.asarray(mapping.scale, np.float32).reshape(()), f"{x.name}.scale")
        zero = self.editor.initializer(np.asarray(mapping.zero, np.uint8).reshape(()), f"{x.name}.zero_point")
        quantized = self._mapped(x, scale, zero, first)
        if self.static.form == "qdq":
            back = standard.dequantize(self.editor, *quantized, first, f"{x.name}.dequantized")
        for product in site.products:
            if product.attention:
                self._attention(product, quantized)
            elif self.static.form == "kernels":
                self._product(product, quantized, None)
            else:
                standard.product(self.editor, product, back, self._weight(product), mapping)

    def finish(self) -> None:
        """Drop what nothing uses any more: the float weights and the nodes between."""
        self.editor.prune()

    def _without_nan(self, x: ir.Value, before: ir.Node) -> ir.Value:
        node = self.editor.node("IsNaN", [x], f"{x.name}.is_nan", before=before)
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.BOOL), x.shape
        zero = self._constant("zero", np.float32(0))
        return self._node("Where", [node.outputs[0], zero, x], f"{x.name}.finite", before, like=x)

    def _rows(self, x: ir.Value, before: ir.Node) -> ir.Value:
        """The largest magnitude in each row: (..., 1).

        Of a slice of rows it is a slice: of no rows, as an expert without a token has, ONNX Runtime's
        reductions keep the features.
        """
        cut = x.producer()
        if cut is not None and _takes_rows(cut) and cut.inputs[0] is not None:
            whole = cut.inputs[0]
            if whole not in self._largest:
                readers = {use.node for use in whole.uses()}
                earliest = next(node for node in self.editor.graph if node in readers)
                self._largest[whole] = self._rows(whole, earliest)
            largest = self._largest[whole]
            shape = None if x.shape is None else ir.Shape([*x.shape[:-1], 1])
            named = f"{x.name}.row"
            return self._node("Slice", [largest, *cut.inputs[1:]], named, before, like=x, shape=shape)
        shape = None if x.shape is None else ir.Shape([*x.shape[:-1], 1])
        magnitude = self._node("Abs", [x], f"{x.name}.abs", before, like=x)
        attrs: dict[str, Any] = {"keepdims": 1}
        inputs: list[ir.Value | None] = [magnitude]
        if self.editor.graph.opset_imports.get("", 1) >= 18:
            inputs.append(self._constant("last_axis", np.array([-1], np.int64)))
        else:
            attrs["axes"] = [-1]
        name = f"{x.name}.row_max"
        largest = self._node("ReduceMax", inputs, name, before, like=x, attrs=attrs, shape=shape)
        smallest = self._constant("smallest_row", SMALLEST_ROW)
        return self._node("Max", [largest, smallest], f"{x.name}.row", before, like=x, shape=shape)

    def _mapped(
        self, x: ir.Value, scale: ir.Value, zero: ir.Value, before: ir.Node
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(integers, scale, zero point) of an activation whose scale and zero point are known."""
        node = self.editor.node("QuantizeLinear", [x, scale, zero], f"{x.name}.int8", before=before)
        integers = node.outputs[0]
        integers.type, integers.shape = ir.TensorType(ir.DataType.UINT8), x.shape
        return integers, scale, zero

    def _quantized(self, x: ir.Value, before: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        """(integers, scale, zero point) of an activation."""
        node = self.editor.node("DynamicQuantizeLinear", [x], f"{x.name}.int8", before=before, results=3)
        integers, scale, zero = node.outputs
        integers.type, integers.shape = ir.TensorType(ir.DataType.UINT8), x.shape
        scale.type, scale.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        zero.type, zero.shape = ir.TensorType(ir.DataType.UINT8), ir.Shape([])
        return integers, scale, zero

    def _product(
        self, product: Product, x: tuple[ir.Value, ir.Value, ir.Value], rows: ir.Value | None
    ) -> None:
        root, (weight, scale), bias = product.root, self._weight(product), product.bias
        if bias is None and rows is None:
            bias = reclaim(root, scale)
        last = root.producer()
        assert last is not None
        inside = self._vector(bias) if rows is None and bias is not None else None
        inputs = [x[0], weight, x[1], scale, x[2], None, inside]
        steps: list[tuple[str, list[ir.Value | None]]] = []
        if rows is not None:
            steps.append(("Mul", [rows]))
        if bias is not None and inside is None:
            steps.append(("Add", [bias]))
        name = f"{root.name}.product"
        y = self._node("MatMulIntegerToFloat", inputs, name, last, like=root, domain=MICROSOFT)
        for operator, other in steps:
            y = self._node(operator, [y, *other], f"{root.name}.{operator.lower()}", last, like=root)
        self.editor.replace(root, y)

    def _attention(self, product: Product, x: tuple[ir.Value, ir.Value, ir.Value]) -> None:
        old, (weight, scale) = product.node, self._weight(product)
        mask = old.inputs[3] if len(old.inputs) > 3 else None
        zero = self._constant("zero_point", np.int8(0))
        attrs = {
            name: old.attributes[name].value
            for name in ("num_heads", "unidirectional", "mask_filter_value", "scale")
            if name in old.attributes
        }
        inputs = [x[0], weight, product.bias, x[1], scale, mask, x[2], zero]
        name = f"{product.root.name}.int8"
        y = self._node("QAttention", inputs, name, old, like=product.root, attrs=attrs, domain=MICROSOFT)
        self.editor.replace(product.root, y)

    def _weight(self, product: Product) -> tuple[ir.Value, ir.Value]:
        """(integers, scales) as initializers; the float weight goes when its last user does."""
        key = (product.weight, product.transposed)
        if key not in self.weights:
            stored = ir.convenience.get_const_tensor(product.weight)
            assert stored is not None
            array, name = stored.numpy(), str(product.weight.name)
            turned = array.T if product.transposed else array
            integers, scales = quantize(turned, self.limit, name, self.static.per_channel)
            self.weights[key] = (
                self.editor.initializer(integers, f"{name}.int8"),
                self.editor.initializer(scales, f"{name}.scale"),
            )
        return self.weights[key]

    def _vector(self, bias: ir.Value) -> ir.Value | None:
        """A bias as the kernel takes it, (out,); None where only an Add will do."""
        shape = () if bias.shape is None else tuple(bias.shape)
        if (
            not shape
            or not isinstance(shape[-1], int)
            or shape[-1] == 1
            or any(dim != 1 for dim in shape[:-1])
        ):
            return None
        if len(shape) == 1:
            return bias
        data = ir.convenience.get_const_tensor(bias)
        return (
            None if data is None else self.editor.initializer(data.numpy().reshape(-1), f"{bias.name}.flat")
        )

    def _constant(self, name: str, data: np.ndarray | np.generic) -> ir.Value:
        if name not in self.constants:
            self.constants[name] = self.editor.initializer(np.asarray(data), f"quantize.{name}")
        return self.constants[name]

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        before: ir.Node,
        *,
        like: ir.Value,
        shape: ir.Shape | None = None,
        attrs: dict[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """A float result, shaped like another value unless a shape is given."""
        node = self.editor.node(operator, inputs, name, before=before, attrs=attrs, domain=domain)
        result = node.outputs[0]
        result.type = ir.TensorType(ir.DataType.FLOAT)
        result.shape = shape if shape is not None else like.shape
        return result


def _takes_rows(node: ir.Node) -> bool:
    """Whether a node is a Slice of the first axis of several."""
    axes = node.inputs[3] if node.op_type == "Slice" and len(node.inputs) > 3 else None
    chosen = None if axes is None else ir.convenience.get_const_tensor(axes)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return chosen is not None and chosen.numpy().tolist() == [0] and shape is not None and len(shape) > 1


def write(
    program: Program,
    sites: Sequence[Site],
    rungs: Sequence[Rung],
    limit: int,
    sources: frozenset[str],
    static: Static | None = None,
) -> int:
    """Put sites of a program on their rungs, in place.

    Args:
        sites: all that `find` gives, a rung for each.
        sources: values that may hold rows of NaN (hidden_rows.nan_sources).
        static: what the rung "static" needs.

    Returns:
        How many activations got a guard against NaN.
    """
    guarded = needing_guard(program.graph.graph, sites, [rung != "float" for rung in rungs], sources)
    guarded = {number for number in guarded if rungs[number] == "tensor"}
    writer = Int8Writer(program.graph, limit, static)
    for number, (site, rung) in enumerate(zip(sites, rungs, strict=True)):
        writer.write(site, rung, number in guarded)
    writer.finish()
    return len(guarded)

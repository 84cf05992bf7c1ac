"""Where int8 can go: products with a constant weight, grouped by the activation that enters them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ....ir.blocks.base import Linear
from ....ir.blocks.linear import linears
from ....ir.blocks.walk import Statics
from ....ir.program import Program
from ....ir.view import view
from .weights import deepest

# What a quantized model has in it, whoever wrote it.
QUANTIZED = frozenset(
    "DequantizeLinear DynamicQuantizeLinear DynamicQuantizeMatMul MatMulBnb4 MatMulInteger "
    "MatMulIntegerToFloat MatMulNBits QAttention QGemm QLinearMatMul QuantizeLinear".split()
)
_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "GemmFastGelu"})
NARROWEST = 16  # features: below, there is no register's worth of int8 to win
# Inputs of Attention after (input, weights, bias, mask_index) and attributes that QAttention does not take.
_ATTENTION_EXTRAS = ("past", "attention_bias", "past_sequence_length")
_ATTENTION_OPTIONS = ("qkv_hidden_sizes", "do_rotary", "rotary_embedding_dim", "past_present_share_buffer")


@dataclass(frozen=True)
class Product:
    """One product with a constant weight.

    node: the MatMul or Gemm, or ONNX Runtime's Attention with its packed q/k/v weight. root: the result with
    the bias added. weight: stored (in, out), or (out, in) when transposed.
    """

    node: ir.Node
    root: ir.Value
    weight: ir.Value
    transposed: bool
    bias: ir.Value | None

    @property
    def attention(self) -> bool:
        return self.node.op_type == "Attention"


@dataclass(frozen=True)
class Site:
    """One activation, quantized once, and the products it enters (q, k and v share theirs)."""

    activation: ir.Value
    products: tuple[Product, ...]

    @property
    def name(self) -> str:
        return str(self.products[0].root.name)

    @property
    def per_token(self) -> bool:
        """Rows can be scaled apart: not inside Attention, where the product's result does not come out."""
        return not any(product.attention for product in self.products)


def quantized(model: ir.Model) -> str | None:
    """The operator that shows a model to be quantized already, if there is one."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return next((node.op_type for node in nodes if node.op_type in QUANTIZED), None)


def find(program: Program, limit: int) -> tuple[list[Site], list[str]]:
    """Sites in topological order, and one sentence for every product that stays in float.

    Args:
        limit: the largest integer weight, which bounds how deep a product may be.
    """
    by_activation: dict[ir.Value, list[Product]] = {}
    misses: list[str] = []
    seen: set[ir.Node] = set()
    looked_at, static = view(program), Statics()
    for linear in linears(looked_at, static).values():
        product = next(value for value in linear.body if value.op in ("linear", "matmul", "conv1d"))
        node = product.native.producer()
        seen.add(node)
        reason = _unfit(linear, product.dtype or linear.weight.dtype, limit)
        if reason:
            misses.append(f"{linear.root.name}: stays in float, {reason}")
            continue
        added = next((v for v in linear.body if v.op == "add"), None)
        bias = linear.bias.native if linear.bias is not None else None
        found = Product(node, (added or product).native, linear.weight.native, linear.transposed, bias)
        by_activation.setdefault(node.inputs[0], []).append(found)
    for node in program.graph.graph:
        if node.op_type == "Attention" and node.domain == "com.microsoft":
            reason = _unfit_attention(node)
            if reason:
                misses.append(f"{node.outputs[0].name}: stays in float, {reason}")
                continue
            x, weight, bias = node.inputs[:3]
            by_activation.setdefault(x, []).append(Product(node, node.outputs[0], weight, False, bias))
        elif node not in seen:
            misses += _unrecognised(node, lambda x: static(looked_at.of(x)))
    return [Site(x, tuple(products)) for x, products in by_activation.items()], misses


def _unfit(linear: Linear, dtype: str | None, limit: int) -> str:
    """Why a linear cannot be an int8 product; empty if it can."""
    if linear.axis != -1 or linear.groups != 1:
        return "a convolution: the int8 product takes features on the last axis"
    if linear.weight.op != "const":
        return f"its weight is computed by {linear.weight.op} in the graph: run fold-constants first"
    if dtype != "float32":
        return f"it computes in {dtype}, and the int8 kernels take float32"
    if min(linear.in_features, linear.out_features) < NARROWEST:
        return f"{linear.in_features} to {linear.out_features} features are too few to gain from int8"
    if linear.in_features > deepest(limit):
        return f"a sum of {linear.in_features} products may not fit 32 bits"
    return ""


def _unfit_attention(node: ir.Node) -> str:
    weight = node.inputs[1]
    if weight is None or weight.const_value is None:
        return "its packed weight is computed in the graph: run fold-constants first"
    if (dtype := weight.const_value.dtype) != ir.DataType.FLOAT:
        return f"it computes in {dtype.name.lower()}, and the int8 kernels take float32"
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return "QAttention needs a bias"
    extra = [
        name for name, value in zip(_ATTENTION_EXTRAS, node.inputs[4:], strict=False) if value is not None
    ]
    extra += [name for name in _ATTENTION_OPTIONS if name in node.attributes and node.attributes[name].value]
    if extra or len(node.outputs) > 1:
        return f"QAttention does not take its {', '.join(extra or ['present output'])}"
    return ""


def _unrecognised(node: ir.Node, constant: Callable[[ir.Value], bool]) -> Iterator[str]:
    """Products with a constant weight that are no Linear."""
    x, weight = [*node.inputs, None, None][:2]
    if node.op_type in _PRODUCTS and x is not None and weight is not None and weight.const_value is not None:
        reason = f"{node.op_type} is not read as a linear layer"
        if constant(x):
            reason = "nothing in it depends on the inputs: run fold-constants first"
        yield f"{node.outputs[0].name}: stays in float, {reason}"

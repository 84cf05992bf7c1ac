"""Biases that a fusion took away from their product.

The int8 kernel adds a bias for nothing as it rescales; BiasGelu and SkipLayerNormalization
pay for another pass over memory, and on CPU the first is slower than Gelu alone.
"""

from __future__ import annotations

import onnx_ir as ir

MICROSOFT = "com.microsoft"


def reclaim(product: ir.Value, scales: ir.Value) -> ir.Value | None:
    """The bias that the one user of a product adds, shaped like the weight's scales; the user no longer does.
    None if there is none.

    Read back are BiasGelu(product, bias) and SkipLayerNormalization(product, stream, ..., bias).
    """
    user = _only_user(product)
    if user is None:
        return None
    kind = (user.domain, user.op_type)
    if kind == (MICROSOFT, "BiasGelu") and _vector(user.inputs[1], scales):
        bias = user.inputs[1]
        user.op_type = "Gelu"
        user.resize_inputs(1)
        return bias
    if (
        kind == (MICROSOFT, "SkipLayerNormalization")
        and len(user.inputs) > 4
        and _vector(user.inputs[4], scales)
    ):
        bias = user.inputs[4]
        user.replace_input_with(4, None)
        return bias
    return None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [use.node for use in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def _vector(value: ir.Value | None, scales: ir.Value) -> bool:
    """Whether a value is a weight of this shape: there from the start, so that any node may read it."""
    return value is not None and value.is_initializer() and value.shape == scales.shape

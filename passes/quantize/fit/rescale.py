"""Features of an activation made smaller, and the weights that read them larger: the same function.

(x / s) (s W) = x W. Where x is made by a norm's scale and shift, by values that attention only averages, or
by the linear half of a feed-forward, the division is done there, in weights, and costs nothing when the
model runs (Lin et al., 2023, arXiv:2306.00978, section 3.2). Elsewhere it is a Mul in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....ir.blocks import recognise
from ....ir.blocks.base import Attention, Blocks, FeedForward, Linear, Norm
from ....ir.onnx.graph import Editor
from ....ir.onnx.lazy import changed
from ....ir.program import Program
from ....ir.view import view
from ..codes.stored import StoredWeight


@dataclass(frozen=True)
class Target:
    """A weight to divide: along an axis, at these places (feature i of the activation is at places[i])."""

    weight: ir.Value
    axis: int
    places: np.ndarray


_FACTORS = "graphwright.factors"


def factors(model: ir.Model) -> tuple[tuple[str, int, np.ndarray], ...]:
    """What weights were multiplied by so far: (weight, axis, float32 factors along it)."""
    found: tuple[tuple[str, int, np.ndarray], ...] = model.graph.meta.get(_FACTORS, ())
    return found


def foldable(program: Program) -> dict[ir.Value, tuple[Target, ...]]:
    """Activations that can be divided feature by feature in the weights that make them."""
    blocks = recognise(view(program))
    found: dict[ir.Value, tuple[Target, ...]] = {}
    for x, targets in (
        *((norm.root, _norm(norm)) for norm in blocks.norm),
        *((attention.context, _values(attention)) for attention in blocks.attention),
        *((forward.down.input, _up(forward, blocks)) for forward in blocks.feed_forward),
    ):
        if targets and all(_own(target) for target in targets):
            found[x.native] = targets
    return found


def divide(
    editor: Editor, x: ir.Value, scale: np.ndarray, readers: Sequence[StoredWeight], targets: Sequence[Target]
) -> bool:
    """Divide an activation's features by a scale, and multiply the weights that read it. Weights are computed
    anew when they are read, one at a time.

    Args:
        scale: float32 (features,), positive.
        readers: the weights of every product that x enters, each with x as its only activation; by first use.
        targets: what foldable says of x; empty for nothing.

    Returns:
        Whether it went into weights, so that nothing is left to be done at run time.
    """
    nodes = dict.fromkeys(use.node for stored in readers for use in stored.products)
    folded = bool(targets) and not x.is_graph_output() and {use.node for use in x.uses()} <= nodes.keys()
    for stored in readers:
        _multiply(editor, stored.value, 1 if stored.rows else 0, np.arange(len(scale)), scale)
    if folded:
        for target in targets:
            _multiply(editor, target.weight, target.axis, target.places, 1 / scale)
        return True
    factor = editor.initializer((1 / scale).astype(np.float32), f"{x.name}.inverse_scale")
    first = readers[0].products[0].node
    smaller = editor.node("Mul", [x, factor], f"{x.name}.scaled", before=first, like=x).outputs[0]
    for node in nodes:
        node.replace_input_with(0, smaller)
    return False


def _multiply(editor: Editor, weight: ir.Value, axis: int, places: np.ndarray, factor: np.ndarray) -> None:
    tensor = weight.const_value
    assert tensor is not None
    by = np.ones(tensor.shape.numpy()[axis], np.float32)
    by[places] = factor
    editor.graph.meta[_FACTORS] = (*factors(editor.model), (str(weight.name), axis, by))

    def multiplied(array: np.ndarray) -> np.ndarray:
        return array * by.reshape([-1 if i == axis else 1 for i in range(array.ndim)]).astype(array.dtype)

    weight.const_value = changed(tensor, multiplied)


def _own(target: Target) -> bool:
    """Whether a weight is one that nothing else uses."""
    weight = target.weight
    plain = weight.is_initializer() and not weight.is_graph_input() and weight.const_value is not None
    return plain and len(weight.uses()) == 1


def _norm(norm: Norm) -> tuple[Target, ...]:
    vectors = [v.native for v in (norm.weight, norm.bias) if v is not None]
    if norm.weight is None or any(v.const_value is None for v in vectors):
        return ()
    return tuple(_vector(v) for v in vectors)


def _vector(value: ir.Value) -> Target:
    assert value.const_value is not None
    shape = value.const_value.shape.numpy()
    return Target(value, len(shape) - 1, np.arange(shape[-1]))


def _values(attention: Attention) -> tuple[Target, ...]:
    """The values' projection, where every head of the context has values of its own."""
    if attention.v is None or attention.v_features is None or attention.heads != attention.kv_heads:
        return ()
    if attention.shifted:  # a vector that is added to the values would have to be divided, too
        return ()
    return _rows(attention.v, attention.v_features.reshape(-1))


def _up(forward: FeedForward, blocks: Blocks) -> tuple[Target, ...]:
    """The half that no activation follows; or all of it before relu, which divides as its input does."""
    linear = forward.gate is not None or forward.activation == "relu"
    if not linear or forward.width != forward.down.in_features:
        return ()
    return _rows(forward.up, np.arange(*forward.up_features))


def _rows(linear: Linear, places: np.ndarray) -> tuple[Target, ...]:
    """A linear layer's output features, bias included."""
    if linear.axis != -1 or linear.weight.native.const_value is None:
        return ()
    weight = Target(linear.weight.native, 0 if linear.transposed else 1, places)
    if linear.bias is None:
        return (weight,)
    bias = linear.bias.native
    if bias.const_value is None:
        return ()
    return (weight, Target(bias, _vector(bias).axis, places))

"""What int8 did to each product: its range, what it clipped, its noise, its kernel and its time.

The signal is y = x W in float64; what was found is the same product from the integers that enter the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ....ir.execute import observe
from ....ir.program import Program
from ...manager.contract import Feed
from ..int8.integer import IntegerProduct, integer_products
from .layer import ROWS, Layer, Timed, decibels, origin


def int8_products(before: Program, after: Program) -> list[tuple[IntegerProduct, str]]:
    """Every int8 product that `before` has in float, with the name of the float weight."""
    floats = {str(name): value.const_value for name, value in before.graph.graph.initializers.items()}
    return [
        (product, source)
        for product in integer_products(after.graph)
        if product.quantizer is not None and product.scale is not None
        and str(product.weight.name) not in floats  # int8 already
        and (source := origin(str(product.weight.name), floats)) is not None
        and _same_sizes(floats[source], product)
    ]  # fmt: skip


def int8_layers(
    pairs: Sequence[tuple[IntegerProduct, str]],
    before: Program,
    after: Program,
    feeds: Sequence[Feed],
    timed: tuple[Timed, Timed],
    threads: int,
) -> list[Layer]:
    """A layer for each of int8_products.

    Args:
        timed: the kernels of `before` and of `after`.
    """
    if not pairs:
        return []
    floats = before.graph.graph.initializers
    seen = _watch(after, [product for product, _ in pairs], feeds, threads)
    plain, quantized = timed
    sharing: dict[str, int] = {}
    for product, _ in pairs:
        sharing[str(product.activation.name)] = sharing.get(str(product.activation.name), 0) + 1
    found = []
    for product, source in pairs:
        tensor = floats[source].const_value
        assert tensor is not None
        noise = _noise(product, tensor.numpy(), *seen[product.output])
        kernel, seconds = _own(product, quantized)
        made = next((s for k, s in quantized if str(product.activation.name) in k.outputs), 0.0)
        share = made / sharing[str(product.activation.name)]
        old = next((s for k, s in plain if source in k.inputs), None)
        found.append(
            Layer(
                product.output,
                source,
                kernel,
                *noise,
                before_us=None if old is None else 1e6 * old,
                after_us=None if seconds is None else 1e6 * (seconds + share),
            )
        )
    return found


def _same_sizes(tensor: ir.TensorProtocol | None, product: IntegerProduct) -> bool:
    """Whether a float weight can be the one that a product's integers stand for, either way round."""
    return tensor is not None and sorted(tensor.shape.numpy()) == sorted(product.integers().shape)


def _own(product: IntegerProduct, timed: Timed) -> tuple[str, float | None]:
    """The kernel that runs a product, and its seconds: the one that reads its integer weight."""
    for kernel, seconds in timed:
        if str(product.weight.name) in kernel.inputs and kernel.op_type != "DequantizeLinear":
            return kernel.op_type, seconds
    return f"{product.node.op_type} in float", None


_Seen = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _watch(
    program: Program, products: Sequence[IntegerProduct], feeds: Sequence[Feed], threads: int
) -> dict[str, _Seen]:
    """(x, integers, scale, zero point) of each product by its output; a row a token, up to ROWS rows."""
    constants: dict[str, np.ndarray] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    for product in products:
        quantizer = product.quantizer
        assert quantizer is not None
        dynamic = quantizer.op_type == "DynamicQuantizeLinear"
        values = (quantizer.inputs[0], *quantizer.outputs) if dynamic else (
            quantizer.inputs[0], quantizer.outputs[0], *quantizer.inputs[1:]
        )  # fmt: skip
        wanted[product.output] = tuple(str(value.name) for value in values if value is not None)
        for value in values:
            if value is not None and (tensor := ir.convenience.get_const_tensor(value)) is not None:
                constants[str(value.name)] = tensor.numpy()
    names = dict.fromkeys(name for each in wanted.values() for name in each if name not in constants)
    taken: dict[str, list[tuple[np.ndarray, ...]]] = {output: [] for output in wanted}
    for values_of in observe(program, list(names), feeds, threads):
        have = {**constants, **values_of}
        for output, each in wanted.items():
            left = ROWS - sum(len(x) for x, *_ in taken[output])
            if left > 0:
                x, q, scale, zero = (have[name] for name in (*each, each[1])[:4])
                zero = zero if len(each) == 4 else np.zeros((), q.dtype)
                rows = x.reshape(-1, x.shape[-1])[:left], q.reshape(-1, q.shape[-1])[:left]
                step = np.broadcast_to(scale, (len(rows[0]), 1)), np.broadcast_to(zero, (len(rows[0]), 1))
                taken[output].append((*rows, *step))
    found: dict[str, _Seen] = {}
    for output, rows_of in taken.items():
        x, q, scale, zero = (np.concatenate(part) for part in zip(*rows_of, strict=True))
        found[output] = x, q, scale, zero
    return found


def _noise(
    product: IntegerProduct,
    weight: np.ndarray,
    x: np.ndarray,
    q: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
) -> tuple[float, float, float, float, float, float]:
    """(low, high, clipped, activation_snr, weight_snr, snr)."""
    finite = np.isfinite(x).all(axis=-1)
    x, q, scale, zero = (part[finite].astype(np.float64) for part in (x, q, scale, zero))
    bounds = np.iinfo(product.activation.dtype.numpy() if product.activation.dtype else np.uint8)
    low, high = (bounds.min - zero) * scale, (bounds.max - zero) * scale
    clipped = ((x < low - scale / 2) | (x > high + scale / 2)).mean() if x.size else 0.0
    back = (q - zero) * scale
    assert product.scale is not None
    steps = ir.convenience.get_const_tensor(product.scale)
    assert steps is not None
    integers = product.integers() * steps.numpy().astype(np.float64)
    # A square weight fits either way round: it is the one that its integers stand for.
    sides = [w.astype(np.float64) for w in (weight, weight.T) if w.shape == integers.shape]
    real = min(sides, key=lambda w: float(((w - integers) ** 2).sum()))
    return (
        float(low.min(initial=0)), float(high.max(initial=0)), float(clipped),
        decibels(x, back), decibels(real, integers), decibels(x @ real, back @ integers),
    )  # fmt: skip

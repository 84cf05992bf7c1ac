"""What int8 did to each layer: the range it got, what it clipped, its noise, its kernel and its time.

Signal to quantization noise, in decibels: 10 log10(sum y^2 / sum (y - y')^2), where y = x W in float64 and
y' is the same product from the integers that enter the kernel (Lin et al., 2016, arXiv:1511.06393, eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...ir.execute import observe
from ...ir.kernels import Kernel
from ...ir.profile import profile
from ...ir.program import Program
from ..base import Feed
from .integer import IntegerProduct, integer_products

ROWS = 256  # tokens of each product that are looked at


@dataclass(frozen=True)
class Layer:
    """One int8 product.

    layer: the value it gives. weight: the float weight it was made from. kernel: what ran. low, high: the
    range that the activation's integers span. clipped: share of activations outside it. activation_snr,
    weight_snr, snr: decibels, of the activation, the weight, and the product of both. before_us, after_us:
    microseconds of the float kernel and of this one, with its share of quantizing the activation; None where
    the kernel was not found.
    """

    layer: str
    weight: str
    kernel: str
    low: float
    high: float
    clipped: float
    activation_snr: float
    weight_snr: float
    snr: float
    before_us: float | None
    after_us: float | None


def layers(
    before: Program, after: Program, feeds: Sequence[Feed], workload: Feed, threads: int = 2
) -> list[Layer]:
    """Every int8 product of `after` whose float weight `before` has, worst first.

    Args:
        before: the program that was quantized; its weights are read by name.
        feeds: what activations are seen on.
        workload: what the kernels are timed on.
    """
    floats = {str(name): value.const_value for name, value in before.graph.graph.initializers.items()}
    pairs = [
        (product, source)
        for product in integer_products(after.graph)
        if product.quantizer is not None and product.scale is not None
        and (source := origin(str(product.weight.name), floats)) is not None
        and _same_sizes(floats[source], product)
    ]  # fmt: skip
    if not pairs:
        return []
    seen = _watch(after, [product for product, _ in pairs], feeds, threads)
    plain, quantized = (profile(program.graph, workload, threads) for program in (before, after))
    sharing: dict[str, int] = {}
    for product, _ in pairs:
        sharing[str(product.activation.name)] = sharing.get(str(product.activation.name), 0) + 1
    found = []
    for product, source in pairs:
        tensor = floats[source]
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
    return sorted(found, key=lambda layer: layer.snr)


def origin(name: str, names: Mapping[str, object]) -> str | None:
    """The weight that a quantized one was made from: passes name what they derive NAME.something."""
    while name not in names:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def _same_sizes(tensor: ir.TensorProtocol | None, product: IntegerProduct) -> bool:
    """Whether a float weight can be the one that a product's integers stand for, either way round."""
    return tensor is not None and sorted(tensor.shape.numpy()) == sorted(product.integers().shape)


def _own(product: IntegerProduct, timed: Sequence[tuple[Kernel, float]]) -> tuple[str, float | None]:
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
    return {
        output: tuple(np.concatenate(part) for part in zip(*each, strict=True))  # type: ignore[misc]
        for output, each in taken.items()
    }


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


def decibels(signal: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise; infinite where there is no noise."""
    noise, power = float(((signal - found) ** 2).sum()), float((signal**2).sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf

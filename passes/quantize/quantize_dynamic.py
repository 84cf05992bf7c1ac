"""quantize-dynamic: int8 products with activations quantized at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result
from .int8.insert import Mode, check_cosine, insert
from .int8.sensitivity import TENSOR, TOKEN
from .int8.weights import Range

OLDEST_OPSET = 11  # the first with DynamicQuantizeLinear


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Turn linear layers into int8 products, their activations quantized at run time.

            y = MatMul(x, w)
        ->  q, s, z = quantize each row of x; y = Mul(MatMulInteger(q, w8, z), s * sw)

    Weights are symmetric int8 with a scale per output feature; activations unsigned int8 with a scale for
    each token, measured at run time and shared by every product they enter (q, k and v). Sites that lose too
    much stay in float, as sensitivity.py tells. Embedding tables stay in float. A table that is also the
    output head keeps its float copy beside the int8 one.

    scale: "token", or "tensor" for one scale for all the tokens of a call where that loses little: a little
        faster, and a text's vector then depends on the texts beside it. A build for TVM reads "tensor" as
        "token": its kernels round each row by itself.
    min_cosine: mean cosine to keep between the outputs' rows in float and in int8, over calibration feeds
        (probe inputs without any); 0 measures nothing and puts every layer in int8 with the first
        kind of scale.
    weights: "auto" takes 8-bit weights where the target's products cannot saturate, and 7-bit ones where
        they can (weights.py has the arithmetic); "full" and "reduced" insist.
    """

    name: ClassVar[str] = "quantize-dynamic"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"min_cosine": (0.0, 0.98, 0.99, 0.999)}

    min_cosine: float = 0.99
    weights: Range = "auto"
    scale: Literal["token", "tensor"] = "token"

    def gated(self) -> bool:
        return True

    def __post_init__(self) -> None:
        check_cosine(self.min_cosine)

    def run(self, program: Program, context: Context) -> Result:
        return insert(
            program,
            context,
            Mode(
                repr(self), "DynamicQuantizeLinear", OLDEST_OPSET, TENSOR if self.scale == "tensor" else TOKEN
            ),
            min_cosine=self.min_cosine,
            weights=self.weights,
        )

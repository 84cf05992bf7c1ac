"""quantize-static: int8 products with activations quantized by calibrated scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...ir.program import Program
from ..common.calibration import check, held_out, require, show
from ..manager.contract import Context, Lossy, Pass, Result
from .calibrate.ranges import Estimator, Kind, estimator
from .codes.affine import fit
from .int8.insert import Calibrated, Mode, check_cosine, insert
from .int8.rewrite import Form, Static
from .int8.sensitivity import STATIC
from .int8.sites import Site
from .int8.weights import Range

OLDEST_OPSET = 13  # the first whose DequantizeLinear has an axis


@dataclass(frozen=True)
class QuantizeStatic(Pass):
    """Turn linear layers into int8 products, their activations quantized with calibrated scales.

            y = MatMul(x, w)
        ->  y = MatMul(DequantizeLinear(QuantizeLinear(x, s, z)), DequantizeLinear(w8, sw))

    Jacob et al., 2018, arXiv:1712.05877; Wu et al., 2020, arXiv:2004.09602. QuantizeLinear goes before an
    activation's products (q, k and v share one) and DequantizeLinear around them; norms, softmax and
    activation functions stay in float. A pair that ONNX Runtime does not fuse into an integer kernel is not
    kept. Weights are as in quantize-dynamic. Layers that lose too much get a scale per token, found at run
    time, or stay in float. Either way a text's vector does not depend on the texts beside it.

    ranges: how an activation's range is found (ranges.py has the papers).
    share: of the numbers that "percentile" keeps.
    symmetric: the range is mapped symmetrically around 0.
    per_channel: weights have a scale for each output feature, or one for all.
    min_cosine, weights: as in quantize-dynamic. Measured on a quarter of the calibration data, with ranges
        from the rest: numbers outside a range are clipped, and what that costs shows on other data alone.
    form: "qdq" writes standard operators, which any runtime can run; "kernels" the com.microsoft operators
        that ONNX Runtime makes of them, with biases inside.
    """

    name: ClassVar[str] = "quantize-static"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"min_cosine": (0.0, 0.98, 0.99, 0.999)}

    ranges: Kind = "mse"
    share: float = 0.9999
    symmetric: bool = False
    per_channel: bool = True
    min_cosine: float = 0.99
    weights: Range = "auto"
    form: Form = "kernels"

    def gated(self) -> bool:
        return True

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def __post_init__(self) -> None:
        check_cosine(self.min_cosine)
        if not 0 < self.share <= 1:
            raise ValueError(
                f"share is {self.share:g}, and a share of numbers to keep is above 0 and at most 1"
            )

    def run(self, program: Program, context: Context) -> Result:
        mode = Mode(repr(self), "DequantizeLinear per axis", OLDEST_OPSET, STATIC, self._calibrated(context))
        return insert(program, context, mode, min_cosine=self.min_cosine, weights=self.weights)

    def _calibrated(self, context: Context) -> Callable[[Program, Sequence[Site]], Calibrated]:
        """What finds the ranges of sites: from all the data; to judge them by, from some, held against the
        rest."""

        def ready(estimators: Mapping[str, Estimator]) -> Static:
            mappings = {
                name: fit(*found.range(), 0, 255, symmetric=self.symmetric)
                for name, found in estimators.items()
            }
            return Static(mappings, self.form, self.per_channel)

        def calibrated(program: Program, sites: Sequence[Site]) -> Calibrated:
            estimators = {
                str(site.activation.name): estimator(self.ranges, symmetric=self.symmetric, share=self.share)
                for site in sites
            }
            check(program, context.calibration)
            some, held = held_out(program, context.calibration)
            seen = show(program, estimators, some, context)
            first = ready(estimators) if held and all(seen.values()) else None
            for name, count in show(program, estimators, held, context).items():
                seen[name] += count
            require(seen)
            whole = ready(estimators)
            return Calibrated(whole, first or whole, held if first else context.calibration)

        return calibrated

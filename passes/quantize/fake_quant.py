"""fake-quant: a graph that trains as its quantized self will run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ...ir.program import Program
from ..common.calibration import calibrate
from ..manager.contract import Context, Lossy, Pass, Result
from .calibrate.ranges import Kind, estimator
from .codes.affine import Affine, fit, integers
from .int8.weights import Range, limit_for

_BITS = (8, 4, 3, 2)


@dataclass(frozen=True)
class FakeQuant(Pass):
    """Insert fake quantization for training (Q8BERT: Zafrir et al., 2019, arXiv:1910.06188).

            y = linear(x, w)
        ->  y = linear(fake_quantize(x, step, offset), fake_quantize(w, steps))

    Every linear layer's weight is rounded to symmetric integers, one step per output feature, and what enters
    it to unsigned 8-bit ones, one step and offset per tensor, found by calibration; q, k and v share theirs.
    Gradients go straight through the rounding and stop where a value is clipped. Train the result in any
    PyTorch loop over `program.graph.parameters()`, after set-mode; to-onnx turns it into the same integers
    behind QuantizeLinear and DequantizeLinear. A weight that several layers share is rounded once.

    bits: of weights, 8, 4, 3 or 2. With 8, `weights` says how many the target's products can take.
    activations: "int8", or "float" to leave them alone.
    ranges: how an activation's range is found (ranges.py).
    weights: "auto" takes 8-bit weights where the target's products cannot saturate, and 7-bit ones where
        they can (weights.py has the arithmetic); "full" and "reduced" insist.
    learned: steps are trained too, as parameters called "..._step" (LSQ: Esser et al., 2019,
        arXiv:1902.08153). Leave those out of weight decay.
    noise: share of a weight's blocks that each training step rounds (Quant-Noise: Fan et al., 2020,
        arXiv:2004.07320); in evaluation all are. 1: all, always.
    block: consecutive inputs of a weight that make a block.
    embeddings: round tables of embeddings too, one step a row.
    """

    name: ClassVar[str] = "fake-quant"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    bits: int = 8
    activations: Literal["int8", "float"] = "int8"
    ranges: Kind = "min-max"
    weights: Range = "auto"
    learned: bool = False
    noise: float = 1.0
    block: int = 8
    embeddings: bool = False

    def requires(self) -> tuple[str, ...]:
        return ("calibration",)

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise ValueError(f"bits is {self.bits}, and weights are rounded to 8, 4, 3 or 2 bits")
        if not 0 < self.noise <= 1:
            raise ValueError(f"noise is {self.noise:g}, and a share of blocks is above 0 and at most 1")
        if self.block < 1:
            raise ValueError(f"block is {self.block}, and a block has at least one weight")

    def run(self, program: Program, context: Context) -> Result:
        from ..common.fx_weights import find, quantized
        from .fake import operators as fake_ops
        from .fake import sites as fake_sites

        if (operator := quantized(program.graph)) is not None:
            return Result(program, False, notes=(f"the model is quantized already: it has {operator}",))
        low, high, notes = self._integers(context)
        matrices, more = find(program)
        weights, left = fake_sites.weights(matrices, self.embeddings)
        inputs: list[fake_sites.Input] = []
        if self.activations == "int8":
            inputs, floats = fake_sites.inputs(program.graph.graph, matrices)
            left += floats
        if not weights and not inputs:
            return Result(program, False, notes=("no linear layer to quantize", *more, *left))
        mappings = self._mappings(program, [one.x.name for one in inputs], context)
        grid = fake_ops.Grid(low, high, self.learned, self.noise, self.block)
        done = [one for one in weights if context.allow(f"fake-quantize {one.name}")]
        for weight in done:
            fake_ops.fake_quantize_weight(program.graph, weight, grid)
        entered = [one for one in inputs if context.allow(f"fake-quantize {one.x.name}")]
        for site in entered:
            fake_ops.fake_quantize_input(program.graph, site, mappings[site.x.name], self.learned)
        program.graph.recompile()
        statistics = {"weights": len(done), "activations": len(entered), "weight levels": high - low + 1}
        return Result(program, bool(done or entered), statistics, (*notes, *more, *left))

    def _integers(self, context: Context) -> tuple[int, int, list[str]]:
        """The least and the largest integer of a weight, and why."""
        if self.bits == 8:
            limit, why = limit_for(context.target, self.weights)
            return -limit, limit, [why]
        low, high = integers(self.bits, signed=True, narrow=not self.learned)
        return low, high, []

    def _mappings(self, program: Program, names: list[str], context: Context) -> dict[str, Affine]:
        """How each activation is mapped, from its range over the calibration feeds."""
        from ...ir.evaluated import evaluated

        if not names:
            return {}
        collectors = {name: estimator(self.ranges) for name in names}
        calibrate(evaluated(program), collectors, context)
        return {name: fit(*one.range(), *integers(8)) for name, one in collectors.items()}

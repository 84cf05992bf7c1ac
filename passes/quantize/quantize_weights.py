"""quantize-weights: weights of 8, 4, 3 or 2 bits, activations as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ...ir.program import Program
from ..manager.contract import Context, Result
from .codes.nbit_form import nbit_form
from .codes.repack import repack
from .codes.rounding import Coded, Scheme, with_zeros
from .codes.stored import StoredWeight
from .fit.awq import Scaled, by_awq
from .fit.coding import without_data
from .fit.gptq import by_gptq
from .fit.stored_pass import StoredPass


@dataclass(frozen=True)
class QuantizeWeights(StoredPass):
    """Store weight matrices and embedding tables in 8, 4, 3 or 2 bits; activations stay in float.

            y = MatMul(x, w)
        ->  y = MatMulNBits(x, codes, scales, zeros)

    Weights are asymmetric integers with a float16 scale per group of inputs, packed: a file really gets
    smaller by what the bits say. Products become ONNX Runtime's MatMulNBits, lookups GatherBlockQuantized,
    where the installed version has them for the width; what is left (3 bits, packed q/k/v weights inside
    Attention, convolutions) is decoded in the graph by standard operators, once, as ONNX Runtime loads the
    model. A weight with several uses (a table that is also the output head) is stored once.

    group: inputs that share a scale, a power of two from 16 on; a half, a quarter, ... of that
        where rows don't fill their groups and smaller ones take less.
    method: "rtn" rounds to nearest. "hqq" fits zeros to the weights, without data (hqq.py). "gptq" rounds one
        input after the other and makes up for each error (gptq.py), and "awq" scales inputs by how large they
        get (awq.py): both need calibration data, and round tables to nearest, clipped where that loses less.
    compute: "float" gives what the decoded weights give; "int8" lets MatMulNBits round activations to 8 bits,
        which is faster; "decode" uses standard operators alone, for other runtimes.
    zeros: "whole" takes as many bits a group as a code; "fractions" takes 16 and a small product beside each
        (fractions.py), and follows a group's range more closely. "auto": fractions in products by gptq and
        awq, where they gain more than their bits would as codes. hqq has fractions; with 8 bits they are
        whole.
    damping, act_order: of gptq.
    """

    name: ClassVar[str] = "quantize-weights"
    widths: ClassVar = (2, 3, 4, 8)
    varies: ClassVar = {"bits": (2, 3, 4, 8), "group": (16, 32, 64, 128), "method": ("rtn", "gptq", "hqq")}

    group: int = 32
    method: Literal["rtn", "gptq", "awq", "hqq"] = "rtn"
    compute: Literal["float", "int8", "decode"] = "float"
    zeros: Literal["auto", "whole", "fractions"] = "auto"
    damping: float = 0.01
    act_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group < 16 or self.group & (self.group - 1):
            raise ValueError(f"group is {self.group}, and a group is a power of two from 16 on")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping is {self.damping:g}, and it is a share of the mean: above 0, up to 1")

    def requires(self) -> tuple[str, ...]:
        return ("calibration",) if self.bits and self.method in ("gptq", "awq") else ()

    def run(self, program: Program, context: Context) -> Result:
        weights, notes = self.choose(program, context)
        known = self._known(program, context)
        free = [
            (w, known.get(w.name) or without_data(w, self.method, self._scheme(w)))
            for w in weights
            if w.name in known or self._free(w)
        ]
        fitted = [w for w in weights if not (w.name in known or self._free(w))]
        scaled = Scaled()
        codes: Iterable[Coded] = ()
        if fitted and self.method == "gptq":
            codes = by_gptq(program, fitted, free, self._fitted, context, self.damping, self.act_order)
        elif fitted:
            codes, scaled = by_awq(program, fitted, self._fitted, context)
        coded = [*free, *zip(fitted, codes, strict=True)]
        known |= {weight.name: codes for weight, codes in coded}
        counts = repack(program.graph, [(w, nbit_form(w, c, self.compute)) for w, c in coded])
        return Result(program, bool(coded), _statistics(coded, counts, scaled), tuple(notes))

    def _known(self, program: Program, context: Context) -> dict[str, Coded]:
        """Codes of weights that another body has too: they are stored once. awq changes what is coded."""
        if not program.feeds or context.chosen is None or self.method == "awq":
            return {}
        return context.chosen.setdefault(("codes", repr(self)), {})

    def _scheme(self, weight: StoredWeight) -> Scheme:
        bits = self.bits_of(weight)
        scheme = Scheme(bits, self.group, self.zeros == "fractions" and bits < 8)
        return scheme.of_rows(weight.shape[1])

    def _fitted(self, weights: Sequence[np.ndarray]) -> Scheme:
        """How weights that one activation enters are stored, float32 (out, in) each."""
        scheme = Scheme(self.bits, self.group, self.zeros == "fractions" and self.bits < 8)
        scheme = scheme.of_rows(weights[0].shape[1])
        return with_zeros(scheme, weights) if self.zeros == "auto" and self.bits < 8 else scheme

    def _free(self, weight: StoredWeight) -> bool:
        """Whether a weight is coded without data."""
        if self.method in ("rtn", "hqq") or weight.table or weight.groups > 1:
            return True
        return self.method == "awq" and any(use.kind == "convolution" for use in weight.uses)


def _statistics(
    coded: Sequence[tuple[StoredWeight, Coded]], counts: Counter[str], scaled: Scaled
) -> dict[str, int | float | str]:
    statistics: dict[str, int | float | str] = {"weights packed": len(coded), **counts}
    if fractions := sum(codes.zero.dtype.kind == "f" for _, codes in coded):
        statistics["with fractional zeros"] = fractions
    if scaled.folded or scaled.multiplied:
        statistics["scales folded into weights"] = scaled.folded
        statistics["scales multiplied at run time"] = scaled.multiplied
    return statistics

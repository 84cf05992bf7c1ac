"""A weight in n-bit integers, read by ONNX Runtime's kernels where it has them, else decoded in the graph."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .decode import Decoder
from .nbits import looks_up, lookup, multiplies, product
from .packed import floats, store
from .rounding import Coded
from .stored import StoredWeight


def nbit_form(stored: StoredWeight, coded: Coded, compute: str) -> Callable[[Decoder], NBitForm]:
    """What stores a coded weight for `repack`.

    Args:
        compute: "float" or "int8" (what MatMulNBits computes in), or "decode" (standard operators alone).
    """
    return lambda decoder: NBitForm(decoder, stored, coded, compute)


class NBitForm:
    """A Form (repack.py) of a coded weight."""

    def __init__(self, decoder: Decoder, stored: StoredWeight, coded: Coded, compute: str) -> None:
        fractions, kernels = coded.zero.dtype.kind == "f", compute != "decode"
        whole_groups = coded.codes.shape[1] % coded.group == 0
        self.multiplies = kernels and multiplies(coded.bits, coded.group)
        self.looks_up = kernels and not fractions and whole_groups and looks_up(coded.bits, coded.group)
        flat = self.looks_up and any(use.kind == "lookup" for use in stored.uses)
        self.decoder, self.compute, self.name = decoder, compute, stored.name
        self.dtype = stored.tensor.dtype
        self.packed = store(decoder, coded, stored.name, flat)

    def product(self, x: ir.Value, node: ir.Node, dtype: ir.DataType) -> ir.Value | None:
        if not self.multiplies:
            return None
        name = f"{node.outputs[0].name}.packed"
        return product(self.decoder, self.packed, x, node, name, self.compute, dtype)

    def lookup(self, ids: ir.Value, rank: int | None, node: ir.Node) -> ir.Value | None:
        name = str(node.outputs[0].name)
        if self.looks_up:
            return lookup(self.decoder, self.packed, ids, node, f"{name}.packed", self.dtype)
        if rank is None:
            return None
        return floats(self.decoder, self.packed, name, node, ids, rank, self.dtype)

    def whole(self) -> ir.Value:
        return floats(self.decoder, self.packed, self.name, self.decoder.start, dtype=self.dtype)

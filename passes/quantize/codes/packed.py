"""Codes with a scale and a zero per group, as a graph stores them and as standard operators decode them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .decode import FLOAT, Decoder, DecodeWriter
from .packing import pack
from .rounding import Coded, fits_half


@dataclass(frozen=True)
class Packed:
    """A coded weight as the graph stores it.

    codes: uint8, (rows, groups, bytes to a group) for each plane; (rows, bytes) if it was stored flat.
    scale: (rows, groups), float16 or float32.
    zero: integers packed like the codes, (rows, bytes) for each plane; or one value, float16 (rows, groups),
    where they are fractions.
    shape: of the weight, (rows, columns).
    """

    codes: tuple[ir.Value, ...]
    scale: ir.Value
    zero: tuple[ir.Value, ...]
    fractions: bool
    bits: int
    group: int
    shape: tuple[int, int]

    @property
    def groups(self) -> int:
        return -(-self.shape[1] // self.group)


def packed_codes(coded: Coded) -> tuple[np.ndarray, ...]:
    """(rows, groups, bytes) for each plane; a short last group is filled up with 0."""
    rows, columns = coded.codes.shape
    groups = -(-columns // coded.group)
    codes = coded.codes
    if spare := groups * coded.group - columns:
        codes = np.concatenate([codes, np.zeros((rows, spare), np.uint8)], axis=1)
    return pack(codes.reshape(rows, groups, coded.group), coded.bits)


def stored_scale(scale: np.ndarray) -> np.ndarray:
    """A scale in float16 where that loses nothing."""
    half = scale.astype(np.float16) if fits_half(scale) else scale
    return half if np.array_equal(half.astype(np.float32), scale) else scale


def store(decoder: Decoder, coded: Coded, name: str, flat: bool = False) -> Packed:
    """The initializers of a coded weight."""
    rows, columns = coded.codes.shape
    arrays = packed_codes(coded)
    if flat:
        arrays = tuple(array.reshape(rows, -1) for array in arrays)
    codes = decoder.planes(arrays, f"{name}.codes")
    scale = decoder.editor.initializer(stored_scale(coded.scale), f"{name}.scale")
    fractions = coded.zero.dtype.kind == "f"
    zero = decoder.planes(
        (coded.zero.astype(np.float16),) if fractions else pack(coded.zero, coded.bits), f"{name}.zero"
    )
    return Packed(codes, scale, zero, fractions, coded.bits, coded.group, (rows, columns))


def floats(
    decoder: Decoder,
    packed: Packed,
    name: str,
    before: ir.Node | None,
    ids: ir.Value | None = None,
    rank: int = 1,
    dtype: ir.DataType = FLOAT,
) -> ir.Value:
    """Rows of a packed weight as floats, (code - zero) * scale: (rows, columns) or (*ids, columns).

    Args:
        ids: which rows; None for all of them.
        rank: of ids.
    """
    write = DecodeWriter(decoder, name, before, ids, rank)
    groups, (rows, columns) = packed.groups, packed.shape
    codes = write.unpacked(packed.codes, packed.bits, (groups, packed.group))
    if packed.fractions:
        zero = write.cast(write.rows(packed.zero[0]), FLOAT)
    else:
        zero = write.unpacked(packed.zero, packed.bits, (groups,))
    scale = write.cast(write.rows(packed.scale), FLOAT)
    steps = write("Sub", [codes, write.reshaped(zero, (groups, 1))])
    scaled = write("Mul", [steps, write.reshaped(scale, (groups, 1))])
    scaled.type = ir.TensorType(FLOAT)
    held = groups * packed.group
    found = write.first(write.reshaped(scaled, (held,)), columns, held)
    found = write.cast(found, dtype)
    found.shape = ir.Shape([*[None] * rank, columns] if ids is not None else [rows, columns])
    return found

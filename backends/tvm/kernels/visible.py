"""Which keys each packed query sees, of a pattern of places: bits that every head and layer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T  # noqa: N812

from .attention import key_block
from .machine import Machine
from .vector import Expr


@dataclass(frozen=True)
class Visible:
    """length: places of a sequence, kept or not, and the most keys that one has."""

    length: int

    def words(self, machine: Machine) -> int:
        """Words of `lanes` bits, one for each vector of the keys' blocks."""
        block = key_block(machine)
        return -(-self.length // block) * block // machine.lanes


def packed_bits(pattern: np.ndarray, machine: Machine) -> np.ndarray:
    """(length, length) bool as [length, ceil(length / lanes)] int32, the first of each lanes in bit 0."""
    length, lanes = pattern.shape[1], machine.lanes
    padded = np.pad(pattern, ((0, 0), (0, -length % lanes)))
    split = padded.reshape(len(pattern), -1, lanes).astype(np.int32)
    return (split << np.arange(lanes, dtype=np.int32)).sum(-1, dtype=np.int32)


def visible(spec: Visible, machine: Machine) -> tirx.PrimFunc:
    """bits, of `packed_bits`; places [m] int32, the kept tokens, by sequence * length + place; starts [b + 1]
    int32, the first of each sequence among them -> [m, words] int32, bits of the sequence's kept tokens."""
    lanes, length = machine.lanes, spec.length
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        T.func_attr({"tirx.noalias": True, "op_pattern": 8, "graphwright.kernel": "visible"})
        m, entries = tirx.Var("m", "int64"), tirx.Var("entries", "int64")
        bits = T.arg("bits", T.buffer((length, -(-length // lanes)), "int32"))
        places = T.arg("places", T.buffer((m,), "int32"))
        starts = T.arg("starts", T.buffer((entries,), "int32"))
        out = T.arg("out", T.buffer((m, spec.words(machine)), "int32"))
        sequences = T.bind(T.cast(entries, "int32") - 1)
        with T.parallel(0, machine.threads) as thread, T.serial(0, sequences) as sequence:
            first = T.bind(starts[sequence])
            count = T.bind(starts[sequence + 1] - first)
            share = T.bind((count + (machine.threads - 1)) // machine.threads)
            with T.serial(T.min(thread * share, count), T.min((thread + 1) * share, count)) as query:
                place = T.bind(places[first + query] % length)
                with T.serial(0, spec.words(machine)) as word:
                    T.buffer_store(out, T.int32(0), [first + query, word])
                with T.serial(0, (count + (lanes - 1)) // lanes) as word:
                    _word(spec, machine, bits, places, out, first, count, first + query, place, word)
    return builder.get()


def _word(
    spec: Visible, machine: Machine, bits: Any, places: Any, out: Any, first: Expr, count: Expr, row: Expr,
    place: Expr, word: Expr,
) -> None:  # fmt: skip
    lanes, last = machine.lanes, -(-spec.length // machine.lanes) - 1
    start = T.bind(places[first + word * lanes] % spec.length)
    there = T.bind(T.min(lanes, count - word * lanes))
    end = T.bind(places[first + word * lanes + (there - 1)] % spec.length)
    with T.If(T.And(there == lanes, end - start == lanes - 1)):
        with T.Then():  # none was left out between them
            low, shift = T.bind(bits[place, start // lanes]), T.bind(start % lanes)
            high = bits[place, T.min(start // lanes + 1, last)]
            both = (low >> shift) | (high << (lanes - shift))
            T.buffer_store(out, both & ((1 << lanes) - 1), [row, word])
        with T.Else(), T.serial(0, there) as bit:
            key = T.bind(places[first + word * lanes + bit] % spec.length)
            one = (bits[place, key // lanes] >> (key % lanes)) & 1
            T.buffer_store(out, out[row, word] | (one << bit), [row, word])

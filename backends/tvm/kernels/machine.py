"""What kernels ask of a target: vector width, registers, products of narrow types, cache for scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...target import Target

Product = Literal["vnni512", "vnni256", "madd512", "madd256", "sdot", "widen"]
Bfloat16 = Literal["dpbf16", "widen"]
Tiles = Literal["no", "amx", "plain"]


_AMX = frozenset({"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"})


@dataclass(frozen=True)
class Machine:
    """lanes: float32 values in a vector register. registers: how many there are. product, bfloat16: how
    matrices of int8 and of bfloat16 are multiplied. threads: parallel workers. scratch: bytes of cache that a
    thread may fill with rows. tiles: whether it has AMX, for int8 and bfloat16; "plain" spells it out."""

    lanes: int
    registers: int
    product: Product
    threads: int
    scratch: int
    bfloat16: Bfloat16 = "widen"
    tiles: Tiles = "no"

    @staticmethod
    def of(target: Target, threads: int) -> Machine:
        """The machine that a target's ISA flags and caches describe."""
        isa, scratch = target.isa, max(target.l2 or 256 << 10, 128 << 10) // 4
        if target.arch == "x86_64" and {"avx512f", "avx512bw"} <= isa:
            return Machine(
                16, 32, "vnni512" if "avx512_vnni" in isa else "madd512", threads, scratch,
                "dpbf16" if target.bfloat16 else "widen", "amx" if isa >= _AMX else "no",
            )  # fmt: skip
        if target.arch == "x86_64":
            return Machine(8, 16, "vnni256" if "avx_vnni" in isa else "madd256", threads, scratch)
        return Machine(4, 32, "sdot" if "dotprod" in isa else "widen", threads, scratch)

"""A program's weights, and how many bytes they take."""

from __future__ import annotations

from .program import Program


def weights(program: Program) -> dict[int, int]:
    """Bytes of every weight, by a number that is its own as long as it is in memory."""
    if program.dialect == "onnx":
        values = program.graph.graph.initializers.values()
        return {id(v.const_value): v.const_value.nbytes for v in values if v.const_value is not None}
    tensors = (*program.graph.parameters(), *program.graph.buffers())
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def weight_bytes(program: Program) -> int:
    """Bytes of every weight, each counted once however often it is used."""
    return sum(weights(program).values())


def parameters(program: Program) -> int:
    """How many trained numbers an fx program has, each counted once however often it is used."""
    seen = {t.untyped_storage().data_ptr() or id(t): t.numel() for t in program.graph.parameters()}
    return sum(seen.values())

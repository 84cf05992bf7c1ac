"""How many bytes a program's weights take."""

from __future__ import annotations

from .program import Program


def weight_bytes(program: Program) -> int:
    """Bytes of every weight, each counted once however often it is used."""
    if program.dialect == "onnx":
        tensors = {
            id(value.const_value): value.const_value.nbytes
            for value in program.graph.graph.initializers.values()
            if value.const_value is not None
        }
        return sum(tensors.values())
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*program.graph.parameters(), *program.graph.buffers())
    }
    return sum(storages.values())

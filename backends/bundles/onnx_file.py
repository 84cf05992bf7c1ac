"""ONNX files written one tensor at a time, so that saving never holds a second copy of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ...ir.fingerprint import tensor_digest
from ...ir.host.residency import release

LIMIT = (1 << 31) - (1 << 27)  # weights in one file: protobuf's 2 GiB, less room for the graph itself
INLINE = 1024  # bytes; shapes and scalars stay inside the graph, where shape inference sees them
PAGE = 4096

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


class WeightFile:
    """An append-only file of tensors; equal tensors are stored once, whichever graph they belong to.

    Close it (or use it in a `with`) before a session maps it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("wb")
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, tensor: Any) -> tuple[int, int]:
        """(offset, length) of the tensor's bytes; a lazy tensor is evaluated and let go."""
        digest = tensor_digest(tensor)
        if digest not in self._places:
            align = PAGE if tensor.nbytes >= PAGE else 64
            offset = -(-self.file.seek(0, 2) // align) * align
            self.file.seek(offset)
            tensor.tofile(self.file)
            self._places[digest] = (offset, tensor.nbytes)
        return self._places[digest]

    def flush(self) -> None:
        """Hand what was added to the system, so that a reader sees it."""
        self.file.flush()

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_external(model: ir.Model, path: Path, weights: WeightFile) -> list[tuple[int, int]]:
    """Write the graph to `path`, its weights appended to a shared file in the same directory.

    Returns:
        (offset, length) of each of its weights there.
    """
    shell, places = model.clone(), []
    for value in shell.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING or tensor.nbytes < INLINE:
            continue
        offset, length = weights.add(tensor)
        places.append((offset, length))
        value.const_value = ir.ExternalTensor(
            weights.path.name,
            offset,
            length,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    weights.flush()
    path.write_bytes(ir.serde.serialize_model(shell).SerializeToString(deterministic=True))
    release(sum(length for _, length in places))
    return places


def write_inline(model: ir.Model, path: Path) -> None:
    """Write one self-contained file, below protobuf's 2 GiB.

    Weights are streamed behind the rest of the graph in protobuf's wire format (fields may come in any
    order), because protobuf itself would hold them twice more.
    """
    shell = model.clone()
    tensors = [(name, value.const_value) for name, value in shell.graph.initializers.items()]
    shell.graph.initializers.clear()
    proto = ir.serde.serialize_model(shell)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_tensor_head(name, tensor) for name, tensor in tensors if tensor is not None]
    sizes = [len(head) + raw for head, raw in heads]
    total = len(graph) + sum(len(_field(_GRAPH_INITIALIZER, size)) + size for size in sizes)
    with path.open("wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        file.write(_field(_MODEL_GRAPH, total))
        file.write(graph)
        for (_, tensor), (head, raw), size in zip(tensors, heads, sizes, strict=True):
            file.write(_field(_GRAPH_INITIALIZER, size))
            file.write(head)
            if raw:
                tensor.tofile(file)  # type: ignore[union-attr]


def _tensor_head(name: str, tensor: Any) -> tuple[bytes, int]:
    """A TensorProto up to its raw bytes, and how many of these follow."""
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes == 0:
        proto = ir.serde.serialize_tensor(tensor)
        proto.name = name
        return proto.SerializeToString(deterministic=True), 0
    proto = onnx.TensorProto(dims=tensor.shape.numpy(), data_type=tensor.dtype.value, name=name)
    return proto.SerializeToString(deterministic=True) + _field(
        _TENSOR_RAW_DATA, tensor.nbytes
    ), tensor.nbytes


def _field(number: int, length: int) -> bytes:
    """The key and length that open a length-delimited field (protobuf encoding, wire type 2)."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)

"""What a program's one hex digest is made of: its structure, and the bytes of every weight.

Equal for programs that are equal in what they compute and how: operators in order, their attributes and
operands, weights bit by bit, graph inputs and outputs with names, dtypes and shapes, and the program's
surroundings. Names and shape annotations of inner values don't enter, nor do weights' names and storage.
Node order does: two orders of independent nodes differ.

A weight is read once: its digest is kept as long as the tensor object lives. PyTorch counts writes into a
tensor, so those show; NumPy doesn't, so a weight in an ONNX graph is to be replaced, never written into.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_CHUNK = 1 << 24
_digests: dict[int, tuple[weakref.ref, Any, str]] = {}


def digest(lines: Iterable[str]) -> str:
    """Of lines in their order, 32 hex digits."""
    whole = hashlib.blake2b(digest_size=16)
    for line in lines:
        whole.update(line.encode())
        whole.update(b"\n")
    return whole.hexdigest()


def graph_lines(graph: Any, dialect: str) -> Iterator[str]:
    """A graph as lines that are equal exactly when graphs are. Linear in the graph; in the weights too, the
    first time they are seen."""
    return _onnx_lines(graph) if dialect == "onnx" else _fx_lines(graph)


def tensor_digest(tensor: Any) -> str:
    """Digest of a torch or onnx_ir tensor: dtype, shape, little-endian bytes in row-major order. An external
    tensor is read in pieces; a lazy one is evaluated and let go."""
    state = (tensor._version, tensor.data_ptr()) if hasattr(tensor, "_version") else None
    known = _digests.get(id(tensor))
    if known is not None and known[0]() is tensor and known[1] == state:
        return known[2]
    digest = hashlib.blake2b(digest_size=16)
    for piece in _bytes(tensor):
        digest.update(piece)
    name, shape = _type(tensor)
    found = f"{name}{shape}:{digest.hexdigest()}"
    key = id(tensor)
    _digests[key] = (weakref.ref(tensor, lambda _: _digests.pop(key, None)), state, found)
    return found


def _type(tensor: Any) -> tuple[str, list[int]]:
    name = str(tensor.dtype.name if hasattr(tensor.dtype, "name") else tensor.dtype).lower()
    return name.removeprefix("torch."), [int(d) for d in tensor.shape]


def _bytes(tensor: Any) -> Iterator[bytes | memoryview]:
    if hasattr(tensor, "_version"):
        from .fx.graph import to_numpy

        yield from _pieces(to_numpy(tensor))
        return
    import onnx_ir as ir

    if isinstance(tensor, ir.ExternalTensor):
        with open(tensor.path, "rb") as file:
            file.seek(tensor.offset or 0)
            left = tensor.nbytes
            while left and (piece := file.read(min(_CHUNK, left))):
                yield piece
                left -= len(piece)
    elif tensor.dtype == ir.DataType.STRING:
        yield repr([bytes(s) for s in tensor.numpy().reshape(-1)]).encode()
    elif tensor.dtype.bitwidth < 8:
        yield tensor.tobytes()
    else:
        yield from _pieces(tensor.numpy())


def _pieces(array: np.ndarray) -> Iterator[memoryview]:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK].data


def _fx_lines(gm: Any) -> Iterator[str]:
    from torch import Tensor
    from torch.fx import GraphModule, Node

    from .fx.graph import attribute

    numbers: dict[Node, int] = {}

    def plain(argument: Any) -> str:
        if isinstance(argument, Node):
            return f"%{numbers[argument]}"
        if isinstance(argument, list | tuple):
            return f"({','.join(map(plain, argument))})"
        if isinstance(argument, dict):
            return f"{{{','.join(f'{k}={plain(v)}' for k, v in argument.items())}}}"
        if isinstance(argument, slice):
            return f"slice{plain((argument.start, argument.stop, argument.step))}"
        return repr(argument)

    for node in gm.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr":
            found = attribute(gm, target)
            if isinstance(found, Tensor):
                target = f"{type(found).__name__} {found.requires_grad} {tensor_digest(found)}"
            elif isinstance(found, GraphModule):
                target = f"({' '.join(_fx_lines(found))})"
        elif callable(node.target) and not hasattr(node.target, "_schema"):
            target = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', target)}"
        yield f"{node.op} {target} {plain(node.args)} {plain(dict(node.kwargs))}"
        numbers[node] = len(numbers)


def _onnx_lines(model: Any) -> Iterator[str]:
    numbers: dict[Any, int] = {}
    yield repr(sorted(model.graph.opset_imports.items()))
    yield from _graph_lines(model.graph, numbers)
    for identifier, function in model.functions.items():
        yield f"function {identifier} {sorted(function.opset_imports.items())}"
        yield from _graph_lines(function, numbers)


def _graph_lines(graph: Any, numbers: dict[Any, int]) -> Iterator[str]:
    def number(value: Any) -> int:
        return numbers.setdefault(value, len(numbers))

    initializers = getattr(graph, "initializers", {})
    for value in graph.inputs:
        if value.name not in initializers:
            yield f"input {value.name} {value.dtype} {value.shape} {number(value)}"
    for node in graph:
        weights = (v for v in node.inputs if v is not None and v.is_initializer())
        yield from _first_uses(weights, numbers)
        operands = ",".join("-" if v is None else str(number(v)) for v in node.inputs)
        results = ",".join(str(number(v)) if v.name else "-" for v in node.outputs)
        yield f"{results}={node.domain}::{node.op_type}:{node.overload}({operands})"
        for name, attribute in sorted(node.attributes.items()):
            yield from _attribute_lines(name, attribute, numbers)
    yield from _first_uses(initializers.values(), numbers)
    yield f"output {[(v.name, numbers[v]) for v in graph.outputs]}"


def _first_uses(values: Iterable[Any], numbers: dict[Any, int]) -> Iterator[str]:
    """Weights get their number where they are first used: their order in the file and names are no matter."""
    for value in values:
        if value not in numbers:
            numbers[value] = len(numbers)
            yield f"{numbers[value]}={tensor_digest(value.const_value)}"


def _attribute_lines(name: str, attribute: Any, numbers: dict[Any, int]) -> Iterator[str]:
    import onnx_ir as ir

    kind = ir.AttributeType
    if attribute.is_ref():
        yield f"{name}=@{attribute.ref_attr_name}"
    elif attribute.type == kind.TENSOR:
        yield f"{name}={tensor_digest(attribute.value)}"
    elif attribute.type == kind.TENSORS:
        yield f"{name}={[tensor_digest(t) for t in attribute.value]}"
    elif attribute.type in (kind.GRAPH, kind.GRAPHS):
        for graph in [attribute.value] if attribute.type == kind.GRAPH else attribute.value:
            yield f"{name}={{"
            yield from _graph_lines(graph, numbers)
            yield "}"
    elif attribute.type in (kind.FLOAT, kind.FLOATS):
        # ONNX stores single precision; in memory an attribute may hold the double it was made from.
        yield f"{name}={attribute.type.name}:{np.float32(attribute.value).tolist()}"
    elif attribute.type in (kind.INTS, kind.STRINGS):
        yield f"{name}={list(attribute.value)}"
    else:
        yield f"{name}={attribute.type.name}:{attribute.value!r}"

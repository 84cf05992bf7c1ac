"""A program as text: one deterministic printer for both dialects, for dumps and golden tests.

    onnx embedding
    %input_ids: i64[batch,length]
    %embedding: f32[batch,length,384] = embedding(words: f32[30522,384] #1f0c9a, %input_ids)
    %mul: f32[batch,12,length,length] = mul(%matmul, 0.125)
    return %mul

A constant of one element stands as a number, a small list of integers as a list, and any other weight as its
name, type and the start of its digest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from math import prod
from typing import Any

from .fingerprint import tensor_digest
from .program import Program
from .values import END, GraphValue, GraphView
from .view import view

_SHORT = {"float": "f", "int": "i", "uint": "u", "bfloat": "bf", "complex": "c"}
_LISTED = 8  # elements of an integer constant that is written out


def text(program: Program) -> str:
    """The program's text, a line for every value that is not a constant."""
    graph = view(program)
    lines = [f"{program.dialect} {program.task}"]
    lines += [line for _, line in listed(graph)]
    names = program.outputs or [value.name for value in graph.outputs]
    returned = (f"{n}={_operand(v)}" for n, v in zip(names, graph.outputs, strict=True))
    return "\n".join([*lines, f"return {', '.join(returned)}", ""])


def listed(graph: GraphView) -> Iterator[tuple[GraphValue, str]]:
    """Every value that is not a constant, with its line."""
    return ((value, _line(value)) for value in graph if value.op != "const")


def diff(before: Program, after: Program) -> str:
    """What a rewrite changed, as a unified diff of the two texts."""
    old, new = text(before).splitlines(), text(after).splitlines()
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm=""))


def _line(value: GraphValue) -> str:
    head = f"%{value.name}: {_type(value)}"
    if value.op == "input":
        return head
    operands = ", ".join("-" if v is None else _operand(v) for v in value.inputs)
    attrs = ", ".join(f"{name}={_plain(attr)}" for name, attr in value.attrs.items())
    result = f".{value.index}" if value.index else ""
    return f"{head} = {value.op}{result}({operands})" + (f" {{{attrs}}}" if attrs else "")


def _type(value: GraphValue) -> str:
    shape = "" if value.shape is None else ",".join("?" if d is None else str(d) for d in value.shape)
    return f"{_dtype(value.dtype)}[{'...' if value.shape is None else shape}]"


def _dtype(name: str | None) -> str:
    kind = (name or "?").rstrip("0123456789")
    return _SHORT[kind] + (name or "")[len(kind) :] if kind in _SHORT else name or "?"


def _operand(value: GraphValue) -> str:
    if value.op != "const":
        return f"%{value.name}"
    if _small(value) and (data := value.const) is not None:
        return _plain(data.reshape(-1)[0].item() if data.size == 1 else data.tolist())
    digest = "" if value.tensor is None else f" #{tensor_digest(value.tensor).rpartition(':')[2][:6]}"
    return f"{value.name}: {_type(value)}{digest}"


def _small(value: GraphValue) -> bool:
    """Whether a constant is written out: one element, or a short list of integers."""
    shape = [d for d in value.shape or () if isinstance(d, int)]
    if value.shape is None or value.dtype == "string":
        return False
    listed = len(shape) == 1 and shape[0] <= _LISTED and value.dtype in ("int64", "int32", "bool")
    return prod(shape) == 1 or listed


def _plain(value: Any) -> str:
    """Attributes and numbers; floats by six significant digits, END as "end"."""
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_plain, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "?" if value is None else "end" if value == END and isinstance(value, int) else str(value)

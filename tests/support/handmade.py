"""Small programs written by hand, for tests of passes and of what drives them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec

ROLES = {"ids": "token_ids", "mask": "attention_mask"}


def parsed(
    body: str,
    inputs: str = "float[batch,length] x",
    outputs: str = "float[batch,length] y",
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 18,
    high: int = 8,
) -> Program:
    """A program from nodes in ONNX's text form, such as "y = Add (x, one)".

    Args:
        weights: initializers by name.
        high: bound of the input called "ids", which counts as token ids; "mask" is the attention mask.
    """
    header = f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header} handmade ({inputs}) => ({outputs}) {{ {body} }}")
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = onnx_ir.from_proto(proto)
    specs = []
    for value in model.graph.inputs:
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
        role = ROLES.get(value.name, "other")
        bound = high if role == "token_ids" else None
        specs.append(
            InputSpec(value.name, value.dtype.name.lower().replace("float", "float32"), shape, role, bound)
        )
    symbols = {dim: (1, 64) for spec in specs for dim in spec.shape if isinstance(dim, str)}
    return Program(
        model, "onnx", tuple(specs), tuple(value.name for value in model.graph.outputs), symbols=symbols
    )


def operators(program: Program) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op_type for node in program.graph.graph]


def golden(name: str, found: str) -> None:
    """Compare with tests/golden/NAME.txt; GOLDEN=write in the environment writes it instead."""
    path = Path(__file__).parents[1] / "golden" / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def _weights(found: re.Match) -> str:
    named = re.findall(r"([^\s<]+ \S+) = +(\{[^}]*\})", found[0])
    return "<" + ", ".join(what if len(values) > 32 else f"{what} = {values}" for what, values in named) + ">"


def before_and_after(before: Program, after: Program) -> str:
    """Both graphs in ONNX's own text form, weights with their values where these are few."""
    texts = [onnx.printer.to_text(onnx_ir.to_proto(program.graph).graph) for program in (before, after)]
    first, second = (re.sub(r"(?<=\n   )<.*>(?=\n)", _weights, text) for text in texts)
    return f"# before\n{first}\n# after\n{second}\n"

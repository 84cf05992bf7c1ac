"""fuse-bias-gelu: a bias and the GELU after it as one operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from ...ir.onnx.graph import Editor
from ...ir.onnx.opset import cannot_raise, raise_opset
from ...ir.program import Program
from ...ir.values import Value
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.gelu import Gelu, gelu_at

_OPSET = 20  # the first with a Gelu of its own
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class FuseBiasGelu(Pass):
    """Replace GELU(x + bias) by com.microsoft BiasGelu, or FastGelu where GELU is computed by tanh.

    A GELU that is spelled out without a bias becomes Gelu (opset 20; ONNX Runtime's own Gelu and FastGelu
    where the model cannot be read as that). Which GELU it is stays as it was. What looks like a GELU and
    computes something else is left alone, with a note, and so is one operator without a bias.
    """

    name: ClassVar[str] = "fuse-bias-gelu"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)
    gated: ClassVar[bool] = True

    def run(self, program: Program, context: Context) -> Result:
        editor, notes = Editor(program.graph), []
        raisable = cannot_raise(program.graph, _OPSET) is None
        found = biases = spelled = 0
        for value in view(program):
            gelu = gelu_at(value)
            if isinstance(gelu, str):
                notes.append(f"{value.name}: {gelu}")
            if gelu is None or isinstance(gelu, str):
                continue
            found += 1
            bias = _bias(gelu)
            why = _unfit(gelu) or (bias if isinstance(bias, str) and not gelu.spelled else "")
            if why:
                notes.append(f"{value.name}: {why}")
            elif context.allow(f"fuse GELU {gelu.root.name}"):
                x, vector = (gelu.input, None) if isinstance(bias, str) else bias
                _write(editor, gelu, x, vector, raisable)
                biases += vector is not None
                spelled += vector is None
                if vector is None and raisable:
                    raise_opset(program.graph, _OPSET)
        if biases or spelled:
            editor.prune()
        statistics: dict[str, int | float | str] = {
            "GELUs fused": f"{biases + spelled} of {found}",
            "with a bias": biases,
        }
        return Result(program, biases + spelled > 0, statistics, tuple(notes))


def _unfit(gelu: Gelu) -> str:
    """Why the kernels do not take this GELU; empty if they do."""
    dtype = gelu.input.dtype or gelu.root.dtype
    return "" if dtype in (None, "float32") else f"it computes in {dtype}, and the kernels in float32"


def _bias(gelu: Gelu) -> tuple[Value, Value] | str:
    """(what the bias is added to, bias), or why there is none to take in."""
    total = gelu.input
    if total.op != "add":
        return "no bias is added right before it"
    if total.native.is_graph_output() or any(user not in gelu.body for user in total.users):
        return f"'{total.name}' before it is used elsewhere too"
    left, right = total.inputs
    for x, bias in ((left, right), (right, left)):
        if x is None or bias is None or bias.op != "const" or x.op == "const":
            continue
        width = x.shape[-1] if x.shape else None
        if not isinstance(width, int) or width == 1 or bias.shape != (width,):
            return f"'{bias.name}' is no vector along the last axis of '{x.name}'"
        return x, bias
    return f"'{total.name}' before it adds two computed values"


def _write(editor: Editor, gelu: Gelu, x: Value, bias: Value | None, raisable: bool) -> None:
    """Put one operator in a GELU's place.

    Args:
        raisable: ONNX's own Gelu may be used.
    """
    old: ir.Value = gelu.root.native
    before, tanh = old.producer(), gelu.approximate == "tanh"
    inputs = [editor.current(x.native)]
    attrs: dict[str, Any] = {}
    if bias is not None:
        op_type, domain = "FastGelu" if tanh else "BiasGelu", _MICROSOFT
        inputs.append(bias.native)
    elif raisable:
        op_type, domain, attrs = "Gelu", "", {"approximate": gelu.approximate}
    else:
        op_type, domain = "FastGelu" if tanh else "Gelu", _MICROSOFT
    node = editor.node(
        op_type, inputs, f"{old.name}.gelu", before=before, attrs=attrs, domain=domain, like=old
    )
    editor.replace(old, node.outputs[0])

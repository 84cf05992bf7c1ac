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
from .parts.driver import Unfit, drive
from .parts.gelu import Gelu, gelu_at

_OPSET = 20  # the first with a Gelu of its own
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class FuseBiasGelu(Pass):
    """Replace GELU(x + bias) by com.microsoft BiasGelu, or FastGelu where GELU is computed by tanh.

            a = Add(x, bias); y = Mul(Mul(a, 0.5), Add(Erf(Div(a, 1.414)), 1))
        ->  y = BiasGelu(x, bias)

    A GELU that is spelled out without a bias becomes Gelu (opset 20; ONNX Runtime's own Gelu and FastGelu
    where the model cannot be read as that). Which GELU it is stays as it was. What looks like a GELU and
    computes something else is left alone, with a note, and so is one operator without a bias.
    """

    name: ClassVar[str] = "fuse-bias-gelu"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        editor, notes = Editor(program.graph), list[str]()
        raisable = cannot_raise(program.graph, _OPSET) is None
        looks = [(value, found) for value in view(program) if (found := gelu_at(value)) is not None]
        gelus = [found for _, found in looks if not isinstance(found, str)]
        notes += [f"{value.name}: {found}" for value, found in looks if isinstance(found, str)]
        biased: list[Gelu] = []

        def write(gelu: Gelu, plan: tuple[Value, Value | None]) -> None:
            x, bias = plan
            _write(editor, gelu, x, bias, raisable)
            if bias is not None:
                biased.append(gelu)
            elif raisable:
                raise_opset(program.graph, _OPSET)

        fused = drive(gelus, lambda gelu: gelu.root.name, _plan, write, "fuse GELU", context, notes)
        if fused:
            editor.prune()
        statistics: dict[str, int | float | str] = {
            "GELUs fused": f"{len(fused)} of {len(gelus)}",
            "with a bias": len(biased),
        }
        return Result(program, bool(fused), statistics, tuple(notes))


def _plan(gelu: Gelu) -> tuple[Value, Value | None]:
    """(what the bias is added to, bias); without a bias what is spelled out still becomes one operator.

    Raises:
        Unfit: the kernels do not take this GELU.
    """
    dtype = gelu.input.dtype or gelu.root.dtype
    if dtype not in (None, "float32"):
        raise Unfit(f"it computes in {dtype}, and the kernels in float32")
    try:
        return _bias(gelu)
    except Unfit:
        if not gelu.spelled:
            raise
        return gelu.input, None


def _bias(gelu: Gelu) -> tuple[Value, Value]:
    """(what the bias is added to, bias). Raises Unfit where there is none to take in."""
    total = gelu.input
    if total.op != "add":
        raise Unfit("no bias is added right before it")
    if total.native.is_graph_output() or any(user not in gelu.body for user in total.users):
        raise Unfit(f"'{total.name}' before it is used elsewhere too")
    left, right = total.inputs
    for x, bias in ((left, right), (right, left)):
        if x is None or bias is None or bias.op != "const" or x.op == "const":
            continue
        width = x.shape[-1] if x.shape else None
        if not isinstance(width, int) or width == 1 or bias.shape != (width,):
            raise Unfit(f"'{bias.name}' is no vector along the last axis of '{x.name}'")
        return x, bias
    raise Unfit(f"'{total.name}' before it adds two computed values")


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

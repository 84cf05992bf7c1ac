"""fuse-attention: attention blocks as ONNX Runtime's fused CPU kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from ...ir.blocks import recognise
from ...ir.blocks.base import Attention
from ...ir.onnx.graph import Editor
from ...ir.onnx.opset import cannot_raise, raise_opset
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive, misses
from .parts.mask import Mask, mask, write
from .parts.operands import Operand, joined, operands
from .parts.outcome import merged, placed

_OPSET = 23  # the first with an Attention of its own


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Replace softmax(scale q k^T + mask) v by a fused kernel that splits and rejoins heads itself.

            s = Add(Mul(MatMul(q, Transpose(k)), scale), mask); y = MatMul(Softmax(s), v)
        ->  y = Attention(q, k, v, mask, scale)

    kernel: "attention" (ONNX Attention, opset 23; grouped heads included), "multi-head" (com.microsoft
    MultiHeadAttention, heads of keys repeated where grouped), or "auto": the former, the latter where the
    model cannot be read as opset 23.

    Scores are capped as they were (softcap). Masks stay as they are: padding, causal, windows, relative
    biases, alone or summed. A row without any key gives what it gave (zero, in Attention, where that was
    NaN). What a kernel cannot express stays as it is, with a note.
    """

    name: ClassVar[str] = "fuse-attention"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    kernel: Literal["auto", "attention", "multi-head"] = "auto"

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        blocks = recognise(view(program))
        notes = misses(blocks.missed, "attention")
        kernel, why = self.kernel, None
        if kernel != "multi-head":
            why = cannot_raise(program.graph, _OPSET)
            if why is not None and kernel == "attention":
                notes += [f"no attention was fused: {why}"]
                return _result(program, 0, len(blocks.attention), notes)
            kernel = "attention" if why is None else "multi-head"
        writer = _Writer(program.graph, kernel)
        fused = drive(
            blocks.attention,
            lambda attention: attention.context.name,
            lambda attention: _plan(attention, kernel),
            writer.write,
            "fuse attention",
            context,
            notes,
        )
        if fused:
            writer.editor.prune()
            if kernel == "attention":
                raise_opset(program.graph, _OPSET)
            if why is not None:
                notes.append(f"MultiHeadAttention was used: {why}")
        return _result(program, len(fused), len(blocks.attention), notes)


def _result(program: Program, fused: int, found: int, notes: list[str]) -> Result:
    return Result(program, fused > 0, {"attentions fused": f"{fused} of {found}"}, tuple(notes))


@dataclass(frozen=True)
class _Fused:
    query: Operand
    key: Operand
    value: Operand
    scale: float
    mask: Mask | None
    merge: tuple[str, ...]
    softcap: float


def _plan(attention: Attention, kernel: str) -> _Fused:
    if attention.is_causal or attention.probabilities is None:
        raise Unfit("it is one operator already")
    if attention.probabilities.native.is_graph_output():
        raise Unfit("its probabilities are an output of the model")
    modern = kernel == "attention"
    if attention.gate is not None:
        raise Unfit(f"its scores are multiplied by the mask '{attention.gate.name}', which no kernel does")
    if attention.sinks is not None:
        raise Unfit("its softmax has learned scores beside the keys' (sinks), which no kernel takes")
    if attention.softcap and not modern:
        raise Unfit(f"its scores are capped at {attention.softcap:g}, which MultiHeadAttention does not do")
    query, key, value, scale = operands(attention, grouped=modern)
    if scale <= 0:
        raise Unfit(f"its scale is {scale:g}, and kernels take positive ones only")
    return _Fused(
        query, key, value, scale, mask(attention, zeroing=modern), merged(attention), attention.softcap
    )


class _Writer:
    """Writes kernels into one graph; a mask that attentions share is written once."""

    def __init__(self, model: ir.Model, kernel: str) -> None:
        self.editor = Editor(model)
        self.kernel = kernel
        self._masks: dict[tuple[object, ...], ir.Value] = {}

    def write(self, attention: Attention, plan: _Fused) -> None:
        old = attention.context.native
        name, before = f"{old.name}.attention", old.producer()
        sides = (("query", plan.query), ("key", plan.key), ("value", plan.value))
        inputs: list[ir.Value | None] = [
            joined(self.editor, side, f"{name}.{what}", before) for what, side in sides
        ]
        bias = None if plan.mask is None else self._mask(plan.mask, inputs[0], f"{name}.mask", before)
        attrs: dict[str, Any] = {"scale": plan.scale}
        if self.kernel == "attention":
            attrs |= {"q_num_heads": plan.query.heads, "kv_num_heads": plan.key.heads}
            attrs |= {"softcap": plan.softcap} if plan.softcap else {}
            inputs += [] if bias is None else [bias]
            node = self.editor.node("Attention", inputs, name, before=before, attrs=attrs)
        else:
            attrs["num_heads"] = plan.query.heads
            inputs += [] if bias is None else [None, None, bias]
            domain = "com.microsoft"
            node = self.editor.node(
                "MultiHeadAttention", inputs, name, before=before, attrs=attrs, domain=domain
            )
        node.outputs[0].type = old.type
        features = plan.value.size * plan.query.heads
        result = placed(self.editor, node.outputs[0], plan.merge, features, plan.query.heads, before)
        self.editor.replace(old, result)

    def _mask(self, found: Mask, query: ir.Value | None, name: str, before: ir.Node) -> ir.Value:
        assert query is not None
        key = found.key
        if key is None or key not in self._masks:
            rank = 1 if self.kernel == "attention" else 4
            written = write(self.editor, found, query, rank, name, before)
            if key is None:
                return written
            self._masks[key] = written
        return self._masks[key]

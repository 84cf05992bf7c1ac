"""fuse-qkv: projections of one activation as one product."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...ir.blocks import recognise
from ...ir.blocks.base import Blocks, Linear
from ...ir.blocks.scores import times
from ...ir.blocks.walk import LAYOUT, passes
from ...ir.onnx.opset import opset
from ...ir.program import Program
from ...ir.values import Value, View
from ...ir.view import view
from ..manager.contract import Context, Exact, Pass, Result
from .parts.driver import Unfit, drive, misses
from .parts.merge import Merger, Siblings, duplicated, unfit

_KERNELS = ("ai.onnx::Attention", "com.microsoft::MultiHeadAttention")
_WAY = LAYOUT | {"layer_norm", "rms_norm", "ai.onnx::RotaryEmbedding"}
_SPLIT_OPSET = 13  # the first whose Split takes sizes as an input


@dataclass(frozen=True)
class FuseQkv(Pass):
    """Merge the query, key and value projections of one activation into one product and a Split.

            q = MatMul(x, wq); k = MatMul(x, wk); v = MatMul(x, wv)
        ->  q, k, v = Split(MatMul(x, wq|wk|wv))

    Whatever of q, k and v reads the same value is merged: all three in self-attention, keys and values in
    cross-attention; their sizes may differ. Weights are put side by side as they are read, one layer at a
    time. A weight that anything else uses too stays where it is, with a note: merged, it would be kept twice.

    gates: also merge the two projections of a gated feed-forward.
    """

    name: ClassVar[str] = "fuse-qkv"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    gates: bool = False

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        if opset(program.graph) < _SPLIT_OPSET:
            note = (
                f"the model imports opset {opset(program.graph)}, and {_SPLIT_OPSET} has the Split it takes"
            )
            return Result(program, False, notes=(note,))
        graph = view(program)
        blocks = recognise(graph)
        notes = misses(blocks.missed, "attention")
        groups: list[Siblings] = []
        known: dict[Linear, None] = {}
        for name, parts in _projections(graph, blocks, self.gates):
            new = {what: linear for what, linear in parts.items() if linear not in known}
            if len(new) < len(parts):
                shared = ", ".join(what for what in parts if what not in new)
                notes.append(f"{name}: its {shared} are those of an earlier block")
            found, why = _by_input(new)
            groups += [Siblings(name, tuple(members)) for members in found]
            notes += [f"{name}: {reason}" for reason in why]
            known |= dict.fromkeys(linear for linear in new.values() if linear is not None)
        writer = Merger(program.graph)

        def check(site: tuple[Siblings, str]) -> None:
            if site[1]:
                raise Unfit(site[1])

        merged = drive(
            zip(groups, duplicated(groups), strict=True),
            lambda site: site[0].name,
            check,
            lambda site, _: writer.write(site[0]),
            "merge the projections of",
            context,
            notes,
        )
        if merged:
            writer.editor.prune()
        statistics: dict[str, int | float | str] = {
            "projections merged": f"{sum(len(group.members) for group, _ in merged)} of {len(known)}",
            "into products": len(merged),
        }
        return Result(program, bool(merged), statistics, tuple(notes))


def _projections(
    graph: View, blocks: Blocks, gates: bool
) -> Iterator[tuple[str, Mapping[str, Linear | None]]]:
    """(name, its projections) of every block whose projections may be merged."""
    for attention in blocks.attention:
        yield attention.context.name, {"q": attention.q, "k": attention.k, "v": attention.v}
    linears = {linear.root: linear for linear in blocks.linear}
    for value in graph.values:
        if value.op in _KERNELS and len(value.inputs) > 2:
            sides = zip("qkv", value.inputs, strict=False)
            yield value.name, {what: _above(side, linears) for what, side in sides}
    for block in blocks.feed_forward if gates else ():
        if block.gate is not None:
            yield block.root.name, {"gate": block.gate, "up": block.up}


def _above(side: Value | None, linears: Mapping[Value, Linear]) -> Linear | None:
    """The Linear that a fused kernel's query, key or value comes from."""
    while side is not None and side not in linears:
        scaled = times(side)
        way = scaled is not None or passes(side) or side.op in _WAY
        side = (scaled[1] if scaled else side.inputs[0]) if way else None
    return None if side is None else linears[side]


def _by_input(parts: Mapping[str, Linear | None]) -> tuple[list[list[Linear]], list[str]]:
    """Lists of at least two linears with one input, and a sentence for every other."""
    notes = [f"its {what} is no product with a constant matrix" for what in parts if parts[what] is None]
    jobs: dict[Linear, list[str]] = {}
    for what, linear in parts.items():
        if linear is not None:
            jobs.setdefault(linear, []).append(what)
    by_input: dict[object, dict[str, Linear]] = {}
    for linear, whats in jobs.items():
        what = " and ".join(whats)
        if len(whats) > 1:
            notes.append(f"its {what} are one product already")
        if reason := unfit(linear):
            notes.append(f"its {what} stays apart, {reason}")
        else:
            by_input.setdefault(linear.input, {})[what] = linear
    groups: list[list[Linear]] = []
    for members in by_input.values():
        weights = {linear.weight for linear in members.values()}
        if len(members) == 1 and len(jobs) > 1:
            notes.append(f"its {next(iter(members))} reads a value that no other reads")
        elif len(weights) < len(members):
            notes.append(f"its {' and '.join(members)} share a weight")
        elif len({linear.weight.dtype for linear in members.values()}) > 1:
            notes.append(f"its {' and '.join(members)} have weights of different types")
        elif len(members) > 1:
            groups.append(list(members.values()))
    return groups, notes

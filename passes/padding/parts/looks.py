"""Whether a model looks at its padding: its outputs, with zeros for the padding that packing leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from ....ir.errors import ContractError
from ....ir.inputs.masks import real_tokens
from ....ir.inputs.probe import probes
from ....ir.onnx.execute import execute_onnx
from ....ir.onnx.precision import widened
from ....ir.program import Program
from ....ir.spec import InputSpec
from ...manager.contract import Context, Exact, Feed
from ...manager.verify import compare, compared_at
from .pack import Packer
from .tokenwise import Axes


def looks(
    program: Program, spec: InputSpec, axes: Axes, edge: Iterable[ir.Value], effect: Exact, context: Context
) -> tuple[bool, str]:
    """(whether rows that begin with padding must stay whole, why nothing may be left out).

    Tried on probe inputs. A row that begins with padding is one whose first token, pooled, may be computed
    from all of the row: DeBERTa lets a masked token look at everything.

    Args:
        spec: the mask. axes: of it.
        edge: the token values that something reads which needs the batch.
        effect: how far outputs may move.
    """
    names = [str(value.name) for value in edge]
    feeds = [feed for feed in probes(program, context.seed) if _padded(spec, feed)]
    if not feeds or not names:
        return False, ""
    expected = _run(program, program.graph, feeds, context)
    for whole in (False, True):
        blank = _blank(program, spec, axes, names, whole)
        why = _moved(program, feeds, expected, _run(program, blank, feeds, context), effect)
        if not why:
            return whole, ""
    return False, why


def _padded(spec: InputSpec, feed: Feed) -> bool:
    return not real_tokens([spec], feed, spec.role)[spec.name].all()


def _blank(program: Program, spec: InputSpec, axes: Axes, names: Sequence[str], whole: bool) -> ir.Model:
    """The graph with what packing would leave out set to zero, right where the batch is read again."""
    twin = program.clone()
    graph = twin.graph.graph
    values = {value.name: value for node in graph for value in node.outputs}
    mask = next(value for value in graph.inputs if value.name == spec.name)
    packer = Packer(graph, mask, axes, spec.hidden != 0, whole)
    for name in names:
        value = values[name]
        users = tuple(value.uses())
        blank = packer.blanked(value)
        for user, position in users:
            if user.op_type != "Shape":
                user.replace_input_with(position, blank)
        if value.is_graph_output():
            graph.outputs[graph.outputs.index(value)] = blank
            value.name, blank.name = f"{name}.whole", name
    return twin.graph


def _run(program: Program, graph: ir.Model, feeds: Sequence[Feed], context: Context) -> list:
    """Outputs of the graph; in float32 where it has 16 bits, whose rounding would pass for a difference."""
    return execute_onnx(widened(graph) or graph, program.outputs, feeds, context.threads)


def _moved(program: Program, feeds: Sequence[Feed], expected: list, found: list, effect: Exact) -> str:
    for feed, before, after in zip(feeds, expected, found, strict=True):
        for name in program.outputs:
            included = compared_at(program, feed, before[name], effect)
            try:
                compare(before[name], after[name], effect, included, "")
            except ContractError:
                return f"the output '{name}' is computed from padded tokens too"
    return ""

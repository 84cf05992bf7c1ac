"""remove-padding: run every token-wise layer of a padded batch on the real tokens alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import networkx as nx
import onnx_ir as ir

from ...ir.blocks import recognise
from ...ir.blocks.base import Attention
from ...ir.inputs.masks import real_tokens
from ...ir.onnx.operators import dtype_name
from ...ir.program import Program
from ...ir.spec import MASKS, InputSpec
from ...ir.view import view
from ..manager.contract import Context, Exact, Feed, Pass, Result
from .parts.looks import looks
from .parts.pack import TOKENS, Packer
from .parts.shifts import before_shifts
from .parts.tokenwise import Axes, token_operands

KERNELS = frozenset({"Attention", "MultiHeadAttention", "GroupQueryAttention"})
_DTYPES = {dtype_name(dtype): dtype for dtype in ir.DataType}
PROJECTIONS = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True)
class RemovePadding(Pass):
    """Run token-wise layers (projections, feed-forwards, norms, embeddings) on unmasked tokens only.

            h = MatMul(x, w)                    x: f32[batch,length,d]
        ->  t = Gather(x, kept); u = MatMul(t, w); h = pad(u)    t: f32[1,tokens,d]

    Tokens are packed into (1, tokens, features) before the first token-wise layer and padded again only
    where an operation needs the whole batch: around attention, pooling and at the outputs. Standard ONNX
    operators throughout (NonZero, CumSum, Gather, Reshape, Where). Outputs are equal at tokens that the
    mask keeps and zero elsewhere; pooled outputs are equal. The first position of each row is always
    computed, so that first-token pooling holds under left padding too and no row is ever empty. A row that
    is padding alone has no defined output (its attention is a mean over padding) and may differ.

    A model that looks at its padding (gives out attention maps, pools without the mask) is left alone, with
    a note: that is tried on probe inputs. Where only the first token of a row does, and is padding itself,
    such rows are kept whole.

    The idea is ByteDance's Effective Transformer (2020) and FlashAttention's `unpad_input`, both for CUDA.
    """

    name: ClassVar[str] = "remove-padding"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4, where="mask")
    in_bodies: ClassVar = False

    def gated(self) -> bool:
        return True

    def run(self, program: Program, context: Context) -> Result:
        masks = [spec for spec in program.inputs if spec.role in MASKS]
        if not masks:
            return Result(
                program, False, notes=("no attention mask among the inputs: no padding is known of",)
            )
        sized = program.clone()
        _state_sizes(sized)
        attentions, layers, notes = recognise(view(sized)).attention, 0, []
        for spec in masks:
            if not context.allow(f"remove-padding by {spec.name}"):
                continue
            packed, note = _remove(sized, spec, attentions, context)
            layers += packed
            notes += [f"{spec.name}: {note}"] if note else []
        statistics = {"projections on real tokens": layers}
        return Result(sized if layers else program, layers > 0, statistics, tuple(notes))

    def pays(self, program: Program, feed: Feed) -> bool:
        return not all(real.all() for real in real_tokens(program.inputs, feed).values())


def _state_sizes(program: Program) -> None:
    """Write into a graph the sizes that follow from its inputs': files often name each one anew."""
    for value in view(program):
        native: ir.Value = value.native
        if value.op in ("const", "input") or value.shape is None:
            continue
        dtype = native.dtype or _DTYPES.get(value.dtype or "")
        if dtype is not None:
            native.dtype, native.shape = dtype, ir.Shape(value.shape)


def _remove(
    program: Program, spec: InputSpec, attentions: tuple[Attention, ...], context: Context
) -> tuple[int, str]:
    """Rewrites for one mask; the number of projections packed, or why there are none."""
    if len(spec.shape) != 2 or not all(isinstance(dim, str) for dim in spec.shape):
        return 0, f"its shape {spec.shape} is fixed, and padding varies only with a symbolic batch and length"
    axes, graph = Axes(str(spec.shape[0]), str(spec.shape[1])), program.graph.graph
    region = _region(graph, axes)
    layers = sum(node.op_type in PROJECTIONS for node in region)
    if not layers:
        return 0, _no_layers(graph, axes)
    mask = next(value for value in graph.inputs if value.name == spec.name)
    masked = _descendants(mask)
    for attention in attentions:
        keys = attention.k.input.native if attention.k else None
        if keys is not None and axes.is_token_value(keys) and not _reaches(attention, masked):
            return (
                0,
                f"attention {attention.context.name} looks at padded keys: its mask comes from elsewhere",
            )
    edge = [value for node in region for value in node.outputs if _leaves(value, region)]
    whole, why = looks(program, spec, axes, edge, RemovePadding.effect, context)
    if why:
        return 0, why
    packer = Packer(graph, mask, axes, spec.hidden != 0, whole)
    tolerant = {value.native.producer() for attention in attentions for value in attention.body}
    for node, kinds in region.items():
        for position, kind in kinds.items():
            value = node.inputs[position]
            assert value is not None
            if value.producer() not in region:
                node.replace_input_with(position, packer.packed(value, kind))
        if node.op_type == "Reshape":
            flat, features = node.outputs[0] in axes.flat, (node.outputs[0].shape or [None])[-1]
            node.replace_input_with(1, packer.constant([-1, features] if flat else [1, -1, features]))
    for node in region:
        for out in node.outputs:
            dims = axes.dims(out) or []
            out.shape = ir.Shape([TOKENS, dims[-1]] if out in axes.flat else [1, TOKENS, *dims[2:]])
    for node in region:
        for out in node.outputs:
            _pad_for_others(graph, packer, out, region, tolerant)
    return layers, ""


def _no_layers(graph: ir.Graph, axes: Axes) -> str:
    """Why nothing can be packed where no projection acts on tokens whose rows come first."""
    second = [axes.length, axes.batch]
    turned = [n for n in graph if n.op_type in PROJECTIONS and (axes.dims(n.inputs[0]) or [])[:2] == second]
    if turned:
        return (
            f"the model keeps its tokens as ({axes.length}, {axes.batch}, features), as {len(turned)} "
            f"projections show, and only ({axes.batch}, {axes.length}, features) can be packed"
        )
    return f"no projection acts on ({axes.batch}, {axes.length}, features) values"


def _region(graph: ir.Graph, axes: Axes) -> dict[ir.Node, dict[int, str]]:
    """Token-wise nodes in connected groups that hold a projection, with their token operands."""
    nodes = {node: kinds for node in graph if (kinds := token_operands(node, axes))}
    if any(value.is_graph_output() or set(value.consumers()) - nodes.keys() for value in axes.flat):
        # Somebody reads the flattened batch itself: leave every flattening where it is.
        axes.flat.clear()
        nodes = {
            node: kinds
            for node in graph
            if node.op_type != "Reshape" and (kinds := token_operands(node, axes))
        }
    for node in before_shifts(nodes, axes):
        del nodes[node]
    for node in [node for node in nodes if node.op_type == "Split"]:
        # Padding one value is cheaper than padding its pieces.
        if not any(user in nodes for out in node.outputs for user in out.consumers()):
            del nodes[node]
    links: nx.Graph = nx.Graph()
    links.add_nodes_from(nodes)
    links.add_edges_from(
        (node, user) for node in nodes for out in node.outputs for user in out.consumers() if user in nodes
    )
    kept: set[ir.Node] = set()
    for group in nx.connected_components(links):
        if any(node.op_type in PROJECTIONS for node in group):
            kept |= group
    return {node: kinds for node, kinds in nodes.items() if node in kept}


def _leaves(value: ir.Value, region: dict[ir.Node, dict[int, str]]) -> bool:
    """Whether anything outside the region reads a value, other than its sizes."""
    readers = (user for user in value.consumers() if user not in region)
    return value.is_graph_output() or any(user.op_type != "Shape" for user in readers)


def _pad_for_others(
    graph: ir.Graph,
    packer: Packer,
    value: ir.Value,
    region: dict[ir.Node, dict[int, str]],
    tolerant: set[ir.Node],
) -> None:
    """Everything outside the region reads a padded form, the graph's outputs under their own names."""
    for user, index in tuple(value.uses()):
        if user in region:
            continue
        if user.op_type == "Shape":
            _read_shape(graph, packer, user, packer.shape_of(value))
        else:
            fill = "last" if user in tolerant or user.op_type in KERNELS else "zeros"
            user.replace_input_with(index, packer.padded(value, fill))
    if value.is_graph_output():
        name = str(value.name)
        value.name = f"{name}.packed"
        padded = packer.padded(value, "zeros where masked")
        padded.name = name
        graph.outputs[graph.outputs.index(value)] = padded


def _read_shape(graph: ir.Graph, packer: Packer, node: ir.Node, dims: ir.Value) -> None:
    """A Shape node's part of the padded dims, without padding anything."""
    rank = dims.shape[0] if dims.shape is not None else None
    assert isinstance(rank, int)
    start, end, _ = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)).indices(
        rank
    )
    bounds, out = [packer.constant([start]), packer.constant([end])], node.outputs[0]
    part = packer.emit("Slice", [dims, *bounds], f"{out.name}.dims", ir.DataType.INT64, [end - start])
    out.replace_all_uses_with(part)
    graph.remove(node)


def _descendants(value: ir.Value) -> set[ir.Value]:
    """Every value computed from this one."""
    found, pending = {value}, [value]
    while pending:
        for user in pending.pop().consumers():
            new = [out for out in user.outputs if out not in found]
            found.update(new)
            pending += new
    return found


def _reaches(attention: Attention, masked: set[ir.Value]) -> bool:
    return attention.mask is not None and attention.mask.native in masked

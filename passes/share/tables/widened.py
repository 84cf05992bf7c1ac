"""Narrow embeddings of an fx program and the product that widens each; and that product over neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Linear
from ....ir.blocks.embedding import LOOKUPS
from ....ir.blocks.walk import bare
from ....ir.fx.graph import add_tensor, attribute, call
from ....ir.program import Program
from ....ir.spec import IDS, InputSpec
from ....ir.values import Value
from ....ir.view import view
from ...common.own_weights import readers, shared
from ..low_rank.tables import replace_node, source, widening

aten = torch.ops.aten
_END = 2**63 - 1  # of any axis
FIRST = 1e-20  # neighbours' weights by the token's own: zeros would count as pruned, and stay so


@dataclass(frozen=True)
class Widened:
    """linear: the product. name: of its weight. weight: as stored, where it is. mask: of the tokens,
    where there is one, and its spec. reason: why it stays as it is, else ""."""

    linear: Linear
    name: str
    weight: torch.Tensor
    mask: tuple[Node, InputSpec] | None
    reason: str


def widened(program: Program) -> tuple[list[Widened], list[str]]:
    """Those of a program in the order of its graph, each once, and a sentence for each table without one."""
    graph = view(program)
    blocks, read = recognise(graph), readers(graph)
    specs = list(zip(graph.inputs, program.inputs, strict=True))
    decodes = any(spec.role == "decoder_token_ids" for spec in program.inputs)
    looks_back = any(one.causal and not one.cross for one in blocks.attention)
    found: dict[Value, Widened] = {}
    notes: list[str] = []
    for block in blocks.embedding:
        for lookup in block.body:
            looked_up = source(lookup.inputs[1]) if lookup.op in LOOKUPS and len(lookup.inputs) == 2 else None
            spec = next((spec for value, spec in specs if value == looked_up), None)
            if spec is None or spec.role not in IDS:
                continue
            table = bare(lookup.inputs[0]).native if lookup.inputs[0] is not None else None
            linear = widening(lookup, block, blocks, graph.outputs)
            if linear is None:
                notes.append(
                    f"{getattr(table, 'target', table)} is not factorised: put factorise-embedding before"
                )
                continue
            mask = _mask(program, spec)
            backwards = spec.role == "decoder_token_ids" if decodes else looks_back
            reason = "the model looks back only, and a token would see the next" if backwards else ""
            reason = reason or _unfit(linear, spec) or shared((linear.weight,), read)
            stored = linear.weight.op == "const"  # what is computed stays, `shared` says so
            name = str(linear.weight.native.target) if stored else linear.weight.name
            weight = attribute(program.graph, name) if stored else torch.empty(0)
            found.setdefault(linear.root, Widened(linear, name, weight, mask, reason))
    return list(found.values()), notes


def _unfit(linear: Linear, spec: InputSpec) -> str:
    if linear.input.op == "concat":
        return "it reads more than one token already"
    shape = linear.input.shape
    if linear.axis != -1 or shape is None or tuple(shape[:-1]) != spec.shape or len(spec.shape) != 2:
        return f"what {linear.root.name} reads is not laid out by (batch, length)"
    return ""


def _mask(program: Program, ids: InputSpec) -> tuple[Node, InputSpec] | None:
    """What tells which of these ids are text."""
    role = "decoder_attention_mask" if ids.role == "decoder_token_ids" else "attention_mask"
    inputs = [node for node in program.graph.graph.nodes if node.op == "placeholder"]
    pairs = zip(inputs, program.inputs, strict=True)
    return next(((n, s) for n, s in pairs if s.role == role and s.shape == ids.shape), None)


def convolve(program: Program, one: Widened, kernel: int, seed: int) -> None:
    """y = linear(x, w)  ->  y = linear(concat(tokens before, x, tokens after), [~0 w ~0]), in place."""
    gm, linear, reach = program.graph, one.linear, kernel // 2
    root: Node = linear.root.native
    x: Node = linear.input.native
    make = lambda target, *args, **kwargs: call(gm.graph, target, *args, before=root, **kwargs)
    text = x
    if one.mask is not None:
        node, spec = one.mask
        kept = make(aten.eq.Scalar if spec.hidden else aten.ne.Scalar, node, 0)
        number = make(aten.to.dtype, make(aten.unsqueeze.default, kept, -1), x.meta["val"].dtype)
        text = make(aten.mul.Tensor, x, number)
    padded = make(aten.pad.default, text, [0, 0, reach, reach])
    taps = []
    for start in range(kernel):
        end = start - 2 * reach
        taps.append(x if start == reach else make(aten.slice.Tensor, padded, 1, start, end or _END))
    weight = one.weight.detach()
    weight = weight if linear.transposed else weight.T
    noise = torch.Generator().manual_seed(seed)
    small = [FIRST * weight.std() * torch.randn(weight.shape, generator=noise) for _ in range(2 * reach)]
    wide = torch.cat([*small[:reach], weight, *small[reach:]], dim=1).to(weight.dtype).contiguous()
    trained = isinstance(one.weight, torch.nn.Parameter)
    wide = torch.nn.Parameter(wide, one.weight.requires_grad) if trained else wide
    owner, _, leaf = one.name.rpartition(".")
    name = f"{owner}.convolution.{leaf}" if owner else f"{leaf}_convolution"
    stored = add_tensor(gm, name, wide, before=root)
    bias = linear.bias.native if linear.bias is not None else None
    vector = [bias] if isinstance(bias, Node) and bias.meta["val"].dim() == 1 else []
    made = make(aten.linear.default, make(aten.cat.default, taps, -1), stored, *vector)
    made = made if bias is None or vector else make(aten.add.Tensor, made, bias)
    replace_node(root, made)

"""Where tokens can be eliminated: behind which attentions, and what reads the tokens that are left.

A *token axis* is one that is coupled with the axis of the residual stream that tokens lie along
(ir/ops/coupling.py), so a mask's two axes, a position bias's and a rotary table's are found as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ....ir.blocks.base import Attention, Blocks
from ....ir.blocks.mask import HIDDEN
from ....ir.blocks.walk import END, bare
from ....ir.errors import PassError
from ....ir.ops.axes import leaves
from ....ir.ops.coupling import coupled_axes
from ....ir.ops.elementwise import couple_elementwise
from ....ir.ops.evaluate import scalar
from ....ir.ops.reductions import couple_reduce
from ....ir.ops.table import OPERATORS
from ....ir.program import Program
from ....ir.spec import MASKS
from ....ir.values import GraphValue, GraphView, Value

ALONG = {"cumsum", "tril", "triu"}  # see other places, though each result stands where its operand stood
_KEEP = {
    "linear", "layer_norm", "rms_norm", "reshape", "transpose", "unsqueeze", "squeeze", "expand", "split",
    "concat", "slice", "select", "stack", "tile", "softmax",
}  # fmt: skip
_SIZES = {"dim", "shape"}
_MEND = "give a model whose outputs are pooled (one vector, or the labels, of a text)"


@dataclass(frozen=True)
class Site:
    """An attention behind which tokens may go.

    number: of the layer, from 0. cut: (batch, tokens, features), the stream that the rest of the layer reads:
    the residual sum behind the attention, or its norm where that follows.
    """

    number: int
    attention: Attention
    cut: GraphValue


@dataclass
class Tokens:
    """Which axes of a program run over its tokens.

    mask: the input that tells text from padding, None where nothing is padded. reasons: of layers that are
    no site, by number. axes: the token axes of a value; merged: those that hold other axes, too; batch: those
    that rows lie along.
    """

    view: GraphView
    blocks: Blocks
    mask: GraphValue | None
    sites: list[Site]
    reasons: dict[int, str]
    key: tuple[int, ...] = ()
    axes: dict[Value, tuple[int, ...]] = field(default_factory=dict)
    merged: dict[Value, tuple[int, ...]] = field(default_factory=dict)
    batch: dict[Value, tuple[int, ...]] = field(default_factory=dict)

    def below(self, cuts: Sequence[Value]) -> dict[Value, int]:
        """How many cuts lie above each value; sizes are no values."""
        level: dict[Value, int] = {}
        for value in self.view.values:
            if value.op in _SIZES or value.native is None:
                level[value] = 0
                continue
            above = [level[v] + (v in cuts) for v in value.inputs if v is not None]
            level[value] = max(above, default=0)
        return level


def tokens(program: Program, view: GraphView, blocks: Blocks) -> Tokens:
    """The token axes of a program, and the places where tokens may go.

    Raises:
        PassError: nowhere, with the reason of the first attention, or an output is there for every token.
    """
    masks = [spec for spec in program.inputs if spec.role in (*MASKS, "mask")]
    if len(masks) > 1 or any(spec.role == "mask" for spec in masks):
        names = ", ".join(f"'{spec.name}'" for spec in masks)
        raise PassError(f"which tokens are padding is not told by one mask of (batch, tokens): {names}")
    mask = next((v for v in view.inputs if masks and v.name == masks[0].name), None)
    sites, reasons = _sites(blocks)
    if not sites:
        missed = [f"{m.node}: {m.reason}" for m in blocks.missed if m.kind == "attention"]
        why = [*reasons.values(), *missed, "none was found"][0]
        raise PassError(f"there is no attention to rank tokens by: {why}")
    found = Tokens(view, blocks, mask, sites, reasons)
    coupled = coupled_axes(view)
    first = sites[0].cut
    atoms = lambda term: tuple(id(atom) for atom, _ in leaves(term) if atom.size > 1)
    terms = coupled.axes[first]
    assert terms[0] is not None
    assert terms[1] is not None
    found.key = atoms(terms[1])
    rows = atoms(terms[0])
    if mask is not None and mask.shape != (first.shape or ())[:2]:
        raise PassError(f"{first.name} is not laid out by (batch, tokens, features), as its mask shows")
    for value, axes in coupled.axes.items():
        keys = [atoms(term) if term is not None else () for term in axes]
        whole = tuple(i for i, key in enumerate(keys) if key and key == found.key)
        found.axes[value] = whole
        found.batch[value] = tuple(
            i for i, key in enumerate(keys) if key and key == rows and key != found.key
        )
        found.merged[value] = tuple(
            i for i, key in enumerate(keys) if i not in whole and set(key) & set(found.key)
        )
    return found


def _sites(blocks: Blocks) -> tuple[list[Site], dict[int, str]]:
    """Sites, and by number the reason of each layer that is none."""
    sites: list[Site] = []
    reasons: dict[int, str] = {}
    number = -1
    residuals = {_under(r.branch, blocks): r for r in blocks.residual if r.of == "attention"}
    for attention in blocks.attention:
        if attention.cross:
            continue
        number += 1
        residual = residuals.get(attention.root)
        why = _unfit(attention)
        if residual is None:
            why = why or "its result is added to no stream"
        if why or residual is None:
            reasons[number] = f"{attention.context.name}: {why}"
            continue
        cut: Value = residual.root
        for norm in blocks.norm:
            if norm.position == "post" and bare(norm.input) == residual.root:
                cut = norm.root
        assert isinstance(cut, GraphValue)
        if cut.shape is None or len(cut.shape) != 3:
            reasons[number] = f"{cut.name}: it is not laid out by (batch, tokens, features)"
        else:
            sites.append(Site(number, attention, cut))
    return sites, reasons


def _under(branch: Value, blocks: Blocks) -> Value | None:
    """The attention that a branch comes out of, past norms, scales and moves."""
    roots = {attention.root for attention in blocks.attention}
    norms = {norm.root: norm.input for norm in blocks.norm}
    value = bare(branch)
    for _ in range(16):
        if value in roots:
            return value
        if value in norms:
            value = bare(norms[value])
            continue
        following = [v for v in value.inputs if v is not None and v.op != "const"]
        if not following:
            return None
        value = bare(following[0])
    return None


def _unfit(attention: Attention) -> str:
    """Why tokens cannot be ranked by an attention."""
    if attention.causal:
        return "it looks back only, so that no token knows who will read it"
    if attention.gate is not None or attention.sinks is not None:
        return "its scores are gated or have sinks, and are not computed a second time"
    if attention.softcap:
        return "its scores are capped, and are not computed a second time"
    if attention.kv_heads != attention.heads:
        return "several of its query heads share a key head"
    one = [layout.replace("1", "h") for layout in attention.layouts]  # a single head's axis
    if one[0] != "bhld" or one[1] not in ("bhld", "bhdl"):
        return f"its queries and keys are laid out as {attention.layouts[0]} and {attention.layouts[1]}"
    return ""


def check(program: Program, found: Tokens, cuts: Sequence[Value]) -> None:
    """Refuses what cannot do with fewer tokens behind these cuts.

    Raises:
        PassError: names the output or the node, and the reason.
    """
    level = found.below(cuts)
    seen = lambda v: level[v] + (v in cuts)
    for name, value in zip(program.outputs, found.view.outputs, strict=True):
        if seen(value) and (found.axes[value] or found.merged[value]):
            raise PassError(
                f"the output '{name}' has a place for every token, and those that are gone have none: {_MEND}"
            )
    inside = {v for a in found.blocks.attention if not a.cross for v in a.body}
    linear = {v for x in found.blocks.linear for v in x.body} | {x.root for x in found.blocks.linear}
    for attention in found.blocks.attention:
        if attention.cross and seen(attention.key):
            raise PassError(
                f"{attention.context.name} of a decoder reads the tokens: what is generated needs all"
            )
        if level[attention.root] and not attention.cross and (why := _masked(attention, found)):
            raise PassError(f"{attention.context.name}: {why}")
    for value in found.view.values:
        reads = [v for v in value.inputs if v is not None and seen(v) and (found.axes[v] or found.merged[v])]
        if not reads or value in inside or value in linear or value.op in _SIZES:
            continue
        if why := _reason(value, reads[0], found):
            raise PassError(f"{value.name} {why}")


def _masked(attention: Attention, found: Tokens) -> str:
    if attention.causal:
        return "it looks back only"
    if found.mask is not None and attention.mask is None and not attention.terms:
        return "it looks at padding, which no mask hides from it"
    return ""


def _reason(value: GraphValue, source: Value, found: Tokens) -> str:
    """Why an operator cannot read the tokens that are left; empty where it can."""
    rule, op = OPERATORS.get(value.op), value.op
    axes = found.axes[source]
    if op == "select" and value.attrs["axis"] in axes:
        return "" if value.attrs["index"] == 0 else f"reads token {value.attrs['index']}, which may be gone"
    if op == "slice" and value.attrs["axis"] in axes:
        start, end = value.attrs["start"], value.attrs["end"]
        whole = start == 0 and (end is None or end >= END)
        return "" if whole or (start, end) == (0, 1) else "reads tokens by their places"
    if rule is not None and rule.couple is couple_reduce:
        rank = len(source.shape or ())
        along = {axis % rank for axis in value.attrs["axes"]} & set(axes)
        return _pooled(value, source, found) if along else ""
    if op == "softmax" and value.attrs.get("axis", -1) % len(value.shape or (0,)) in axes:
        return "is a softmax over tokens that is no recognised attention's"
    if op == "matmul":
        other = [v for v in value.inputs if v is not None and v is not source]
        return "multiplies tokens with each other" if not other or found.axes[other[0]] else ""
    pointwise = rule is not None and rule.couple is couple_elementwise and op not in ALONG
    if not pointwise and op not in _KEEP:
        return f"({op}) may look at a token's neighbours or its place"
    return ""


def _pooled(value: GraphValue, source: Value, found: Tokens) -> str:
    """Why a reduction over tokens counts places of padding, too; empty where it doesn't."""
    if found.mask is None:
        return ""
    under = bare(source)
    if value.op == "sum" and under.op in ("mul", "where"):
        return ""
    if value.op == "max" and under.op == "where":
        fills = [scalar(v) for v in under.inputs[1:] if v is not None]
        if any(one is not None and one <= HIDDEN for one in fills):
            return ""
    return f"is a {value.op} over all tokens, padding too, which no mask leaves out"

"""A kind of attention written beside the one that stands at a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node, map_arg

from ....ir.fx.graph import add_tensor, call
from ....ir.fx.mode import argument, set_argument
from ....ir.program import Program
from ....ir.spec import InputSpec
from ...common.between import between
from ...common.outputs import computed
from ...manager.contract import Feed
from .kind import Heads, Kind, Mixing, Pattern
from .site import Site
from .splice import splice

aten = torch.ops.aten
_BHLD = "bhld"


def written(program: Program, site: Site, kind: Kind, own: Mapping[str, Tensor]) -> Node:
    """What stands for the heads merged, in front of the old one, which is left as it is.

    Args:
        own: of the kind, at this site; they become parameters and buffers of the program.
    """
    gm, names = program.graph, list(own)
    before = site.end if isinstance(kind, Mixing) else _anchor(site)[0]
    nodes = [add_tensor(gm, f"attend.{site.number}.{name}", own[name], before) for name in names]
    if isinstance(kind, Mixing):
        operands = operands_of(site)
        count = len(operands)

        def mix(*tensors: Tensor) -> Tensor:
            heads = heads_of(site, tensors[:count])
            mixed = kind.mix(heads, dict(zip(names, tensors[count:], strict=True))).transpose(1, 2)
            return mixed.reshape(*mixed.shape[:2], mixed.shape[2] * mixed.shape[3])

        return splice(mix, [*operands, *nodes], site.end)
    assert isinstance(kind, Pattern)
    return _masked(site, kind, names, nodes)


def seen_at(program: Program, site: Site, feeds: Sequence[Feed]) -> Iterator[Heads]:
    """A site's heads, feed by feed."""
    operands = operands_of(site)
    for feed in feeds:
        yield heads_of(site, computed(program, operands, feed))


def operands_of(site: Site) -> list[Node]:
    """What `heads_of` reads."""
    attention = site.attention
    assert attention.q is not None
    found = [attention.query.native, attention.key.native, attention.value.native, attention.q.input.native]
    return [*found, site.mask[0]] if site.mask is not None else found


def heads_of(site: Site, tensors: Sequence[Tensor]) -> Heads:
    """A site's heads of what its operands hold."""
    attention = site.attention
    q, k, v = (
        tensor.permute([layout.replace("1", "h").index(axis) for axis in _BHLD])
        for tensor, layout in zip(tensors[:3], attention.layouts, strict=True)
    )
    k, v = (
        x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] != q.shape[1] else x for x in (k, v)
    )
    keep = kept(tensors[4], site.mask[1]) if site.mask is not None else None
    return Heads(q, k, v, tensors[3], keep, site.causal, attention.operand_scale)


def kept(mask: Tensor, spec: InputSpec) -> Tensor:
    """Which tokens a mask keeps, bool."""
    return mask == 0 if spec.hidden else mask != 0


def _masked(site: Site, kind: Pattern, names: Sequence[str], own: Sequence[Node]) -> Node:
    """The same attention once more, with fewer keys."""
    length, axis = site.lengthwise
    anchor, masked = _anchor(site)

    def sees(tensor: Tensor, *tensors: Tensor) -> Tensor:
        places = torch.arange(tensor.shape[axis])
        i, j = places[:, None], places[None, :]
        found = kind.sees(i, j, dict(zip(names, tensors, strict=True)), site.causal)
        return found & (j <= i) if site.causal else found

    shown = splice(sees, [length, *own], anchor)
    if masked is not None:  # scores, before a softmax
        new = splice(_hidden, [masked, shown], anchor)
        entry: Node = masked
    else:
        new = _with_mask(anchor, shown)
        entry = anchor
    return _again(entry, new, site.end)


def _anchor(site: Site) -> tuple[Node, Node | None]:
    """(what is computed of the scores, the scores); of a single operator (the operator, None)."""
    probabilities = site.attention.probabilities
    if probabilities is None:
        core = next(v for v in site.attention.body if v.op == "sdpa")
        return core.native, None
    scores = probabilities.inputs[0]
    assert scores is not None
    return probabilities.native, scores.native


def _hidden(scores: Tensor, shown: Tensor) -> Tensor:
    return torch.where(shown, scores, torch.finfo(scores.dtype).min)


def _with_mask(attention: Node, shown: Node) -> Node:
    """The operator with fewer keys; one without any gives the mean over all, not NaN."""
    mask = argument(attention, "attn_mask")
    dtype = attention.args[0].meta["val"].dtype  # type: ignore[union-attr]

    def added(shown: Tensor, *masks: Tensor) -> Tensor:
        for given in masks:
            if given.dtype == torch.bool:
                shown = shown & given
            else:
                return torch.where(shown, given, torch.finfo(dtype).min)
        return torch.where(shown, 0.0, torch.finfo(dtype).min).to(dtype)

    bias = splice(added, [shown] if mask is None else [shown, mask], attention)
    graph = attention.graph
    with graph.inserting_before(attention):
        new = graph.node_copy(attention)
    set_argument(new, "attn_mask", bias)
    if argument(new, "is_causal"):
        set_argument(new, "is_causal", False)
    return new


def _again(entry: Node, new: Node, exit: Node) -> Node:
    """What is computed from `entry` on the way to `exit`, computed from `new`."""
    known = {entry: new}
    for node in between(entry, exit):
        args, kwargs = map_arg((node.args, dict(node.kwargs)), lambda old: known.get(old, old))
        known[node] = call(exit.graph, node.target, *args, before=exit, **kwargs)
    return known[exit]


def parameter(tensor: Tensor) -> nn.Parameter:
    """One of a kind's own tensors that learns."""
    return nn.Parameter(tensor.detach().clone().float())

"""Self-attentions of an fx program, and what can be said of the keys that their queries see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.fx import Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Attention
from ....ir.blocks.sight import Sight, hiding, rule, visible
from ....ir.errors import PassError
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ....ir.spec import MASKS, UNBOUNDED, InputSpec
from ....ir.values import Value
from ....ir.view import view
from ...common.outputs import computed

_LENGTH = 24  # of texts that masks are computed for
_PATTERNS = ("ragged", "left", "ones")  # the last one keeps all


@dataclass(frozen=True)
class Site:
    """A self-attention.

    number: among self-attentions, from 0. mask: the node of the input that tells text from padding, and its
    spec; None where nothing is padded. causal: queries look back only. more: what its scores are beside
    products and masks of padding and of later keys, in words; empty where they are no more. longest: tokens
    of the longest text; None where nothing bounds them.
    """

    number: int
    attention: Attention
    mask: tuple[Node, InputSpec] | None
    causal: bool
    more: str
    longest: int | None

    @property
    def end(self) -> Node:
        """The heads merged, before the output projection."""
        return self.attention.context.native

    @property
    def name(self) -> str:
        return self.attention.context.name

    @property
    def lengthwise(self) -> tuple[Node, int]:
        """A value, and the axis of it that is as long as the text."""
        return self.attention.query.native, self.attention.layouts[0].index("l")


def sites(program: Program) -> tuple[list[Site], dict[int, str]]:
    """Self-attentions whose parts can be told, and by number the reason of each other one.

    Raises:
        PassError: there is no self-attention, with the reason of what looked like one.
    """
    blocks = recognise(view(program))
    among = [attention for attention in blocks.attention if not attention.cross]
    if not among:
        missed = [f"{miss.node}: {miss.reason}" for miss in blocks.missed if miss.kind == "attention"]
        crossing = [f"{a.context.name}: its keys come from another stream" for a in blocks.attention]
        raise PassError(f"there is no self-attention: {[*missed, *crossing, 'none was found'][0]}")
    spec = _mask(program)
    given = next(
        (n for n in program.graph.graph.find_nodes(op="placeholder") if spec and n.name == spec.name), None
    )
    mask = (given, spec) if given is not None and spec is not None else None
    sights = _sights(program, among, spec)
    found, reasons = [], {}
    for number, attention in enumerate(among):
        if why := _unfit(attention):
            reasons[number] = f"{attention.context.name}: {why}"
            continue
        sight = sights[attention]
        known = isinstance(sight, Sight) and (sight.before, sight.behind) in ((None, None), (None, 0))
        causal = attention.causal or (isinstance(sight, Sight) and sight.behind == 0)
        more = "" if known else _more(attention, sight)
        found.append(Site(number, attention, mask, causal, more, _longest(program, attention)))
    return found, reasons


def _mask(program: Program) -> InputSpec | None:
    masks = [spec for spec in program.inputs if spec.role in MASKS]
    return masks[0] if len(masks) == 1 else None


def _longest(program: Program, attention: Attention) -> int | None:
    length = (attention.query.shape or ())[attention.layouts[0].index("l")]
    if isinstance(length, int):
        return length
    high = program.symbols.get(str(length), (1, UNBOUNDED))[1]
    return high if high < UNBOUNDED else None


def _unfit(attention: Attention) -> str:
    """Why an attention can't be told apart from what is around it."""
    shape, layout = attention.query.shape or (), attention.layouts
    if any(set(one.replace("1", "h")) != set("bhld") for one in layout):
        return f"queries, keys and values are laid out as {', '.join(layout)}"
    if (attention.key.shape or ())[layout[1].index("l")] != shape[layout[0].index("l")]:
        return "it has other keys than queries: a cache's, or another text's"
    merged = attention.context.shape or ()
    if len(merged) != 3 or tuple(merged[:2]) != (shape[layout[0].index("b")], shape[layout[0].index("l")]):
        return "its heads are not merged into (batch, length, features)"
    if attention.probabilities is not None and _escapes(
        attention.probabilities.native, attention.context.native
    ):
        return "what its softmax gives is read elsewhere, as an attention map is"
    if attention.q is None:
        return "its queries come from no projection"
    return ""


def _escapes(node: Node, end: Node) -> bool:
    """Whether an output reads a node otherwise than through another."""
    seen, stack = {node, end}, [node]
    while stack:
        for user in stack.pop().users:
            if user.op == "output":
                return True
            if user not in seen:
                seen.add(user)
                stack.append(user)
    return False


def beside_masks(attention: Attention) -> str:
    """What scores are beside products and masks, in words; empty where they are no more."""
    if attention.sinks is not None:
        return "sinks stand among its scores"
    if attention.softcap or attention.gate is not None:
        return "its scores are capped or gated"
    if attention.relative_bias is not None:
        return "a position bias is added to its scores"
    return ""


def _more(attention: Attention, sight: object) -> str:
    if more := beside_masks(attention):
        return more
    if isinstance(sight, Sight):
        return "it looks at a window of keys already"
    return "its mask hides other keys than padding and later ones"


def _sights(
    program: Program, attentions: Sequence[Attention], mask: InputSpec | None
) -> dict[Attention, object]:
    """The rule by which each attention's queries see keys; None where there is none."""
    values = list(dict.fromkeys(value for one in attentions for value in hiding(one)))
    nodes = [value.native for value in values]
    lengths = {symbol: min(max(_LENGTH, low), high) for symbol, (low, high) in program.symbols.items()}
    seen: list[tuple[np.ndarray | None, dict[Value, np.ndarray]]] = []
    for pattern in _PATTERNS:
        arrays = feed(program, lengths, pattern)
        kept = mask.kept(arrays[mask.name]) if mask is not None else None
        results = computed(program, nodes, arrays) if nodes else []
        seen.append((kept, {value: found.numpy() for value, found in zip(values, results, strict=True)}))
    return {one: _rule(one, seen) for one in attentions}


def _rule(attention: Attention, seen: Sequence[tuple[np.ndarray | None, dict[Value, np.ndarray]]]) -> object:
    if attention.softcap or attention.gate is not None or attention.sinks is not None:
        return None
    if not hiding(attention):
        return Sight(behind=0) if attention.causal else Sight()
    cases = []
    for kept, values in seen:
        if kept is None:  # nothing is padded
            shape = np.broadcast_shapes(*(array.shape for array in values.values()))
            kept = np.ones((shape[0] if len(shape) == 4 else 1, max(shape[-2:])), bool)
        found = visible(attention, kept, values)
        if found is None:
            return None
        cases.append((kept, found))
    return rule(cases)

"""What shared weights are given in a program, and what they should make of it, wherever they are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks import recognise
from ....ir.blocks.base import Linear, Norm
from ....ir.blocks.walk import bare
from ....ir.fx.graph import attribute, set_attribute
from ....ir.program import Program
from ....ir.view import view
from ...common.lockstep import Lockstep
from ...common.outputs import rows
from ...common.projections import OutputProjection, projection
from ...common.surgeon import Moments, Surgeon
from ...manager.contract import Feed
from .scales import Scales, normalised

DAMPING = 0.01
Use = OutputProjection | Norm


@dataclass
class Shared:
    """One weight (and bias): the first place of its use, and the sums over all of them."""

    use: Use
    moments: Moments = field(default_factory=Moments.none)
    scales: Scales | None = None


def uses(program: Program, shared: set[str]) -> tuple[list[Use], list[str]]:
    """Every linear map and norm over shared parameters, in graph order, and a sentence for the other ones."""
    blocks = recognise(view(program))
    order = {node.name: number for number, node in enumerate(program.graph.graph.nodes)}
    added = {bare(residual.branch): residual for residual in blocks.residual}
    linears = [one for one in blocks.linear if one.axis == -1 and one.groups == 1]
    found: list[tuple[int, Use]] = []
    fitted = {""}
    both: list[Linear | Norm] = [*linears, *blocks.norm]
    for one in both:
        weight, bias = _path(one.weight), _path(one.bias)
        if weight in shared and (one.bias is None or bias in shared):
            use = one if isinstance(one, Norm) else projection(one, added.get(one.root), order)
            found.append((order[one.root.native.name], use))
            fitted |= {weight, bias}
    left = ", ".join(sorted(shared - fitted))
    notes = [f"no linear map's and no norm's, and therefore the mean: {left}"] if left else []
    return [use for _, use in sorted(found, key=lambda pair: pair[0])], notes


class Round:
    """Both programs run once. seen: by the weight's name. error: |difference|^2 / |outputs|^2."""

    def __init__(
        self, student: Program, teacher: Program, feeds: Sequence[Feed], uses: Sequence[Use]
    ) -> None:
        self._program, self._feeds = student, feeds
        theirs = {node.name: node for node in teacher.graph.graph.nodes}
        ends = [theirs[_end(use).name] for use in uses]
        asked, due = Counter(node for use in uses for node in _reads(use)), Counter(ends)
        self._student, self._teacher = Lockstep(student, feeds, asked), Lockstep(teacher, feeds, due)
        self.seen: dict[str, Shared] = {}
        for use, end in zip(uses, ends, strict=True):
            self._look(use, end)
            asked.subtract(_reads(use))
            due[end] -= 1
            self._student.let_go(*(node for node in _reads(use) if not asked[node]))
            self._teacher.let_go(*([] if due[end] else [end]))
        self.error = self._distance()

    def _look(self, use: Use, end: Node) -> None:
        one = self.seen.setdefault(_path(use.weight) if isinstance(use, Norm) else use.weight, Shared(use))
        self._teacher.reached(end)
        for node in _reads(use):
            self._student.reached(node)
        for number, feed in enumerate(self._feeds):
            values = [self._student.value(node, number) for node in _reads(use)]
            read, *stream = (rows(self._program, feed, value) for value in values)
            target = rows(self._program, feed, self._teacher.value(end, number))
            if isinstance(use, Norm):
                one.scales = one.scales or Scales(read.shape[-1], use.bias is not None)
                one.scales.add(normalised(use, read), target)
            else:
                target = target - stream[0] if stream else target
                one.moments = one.moments.plus(read, target, constant=use.bias is not None)

    def _distance(self) -> float:
        away = size = 0.0
        pairs = zip(self._teacher.outputs(), self._student.outputs(), strict=True)
        for feed, (wanted, got) in zip(self._feeds, pairs, strict=True):
            for a, b in zip(wanted, got, strict=True):
                if a.is_floating_point():
                    x, y = (rows(self._program, feed, one).double() for one in (a, b))
                    known = x.isfinite()
                    away += float((x - y)[known].square().sum())
                    size += float(x[known].square().sum())
        return away / size if size else 0.0


def write(gm: GraphModule, one: Shared) -> None:
    """Puts the least-squares solution in place of a shared weight and its bias."""
    use = one.use
    if not isinstance(use, Norm):
        use.write(gm, Surgeon(one.moments, use.matrix(gm), damping=DAMPING).fitted())
        return
    assert one.scales is not None
    paths = [path for path in (_path(use.weight), _path(use.bias)) if path]
    old = [attribute(gm, path) for path in paths]
    scale, *shift = (tensor.detach().double().numpy().reshape(-1) for tensor in old)
    made = one.scales.fitted(scale, shift[0] if shift else np.zeros(1), DAMPING)
    for path, was, new in zip(paths, old, made, strict=False):
        tensor = torch.from_numpy(new).to(was.dtype).reshape(was.shape)
        set_attribute(gm, path, torch.nn.Parameter(tensor, was.requires_grad))


def _path(value: object) -> str:
    node = getattr(value, "native", None)
    return str(node.target) if isinstance(node, Node) and node.op == "get_attr" else ""


def _reads(use: Use) -> list[Node]:
    """The operand, and the stream that the result is added to."""
    if isinstance(use, Norm):
        return [use.input.native]
    return [use.operand, *([use.stream] if use.stream is not None else [])]


def _end(use: Use) -> Node:
    """Where the teacher's value is what a use is to come near to."""
    if isinstance(use, Norm):
        node: Node = use.root.native
        return node
    return use.sum if use.stream is not None and use.sum is not None else use.root

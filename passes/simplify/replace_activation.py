"""replace-activation: another non-linearity in feed-forwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...ir.blocks import recognise
from ...ir.blocks.activation import ACTIVATIONS, Activation, activations
from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.view import view
from ..manager.contract import Context, Lossy, Pass, Result

if TYPE_CHECKING:
    from torch.fx import Node

NAMES = {  # as options spell them -> as blocks are named
    **{name.replace("_", "-"): name for name in ACTIVATIONS if name not in ("identity", "gelu_tanh")},
    "tanh-gelu": "gelu_tanh",
}
SHOWN = {name: shown for shown, name in NAMES.items()}


@dataclass(frozen=True)
class ReplaceActivation(Pass):
    """Replace the non-linearity of feed-forwards, as GELU by ReLU.

            y = linear(gelu(linear(x, w1, b1)), w2, b2)
        ->  y = linear(relu(linear(x, w1, b1)), w2, b2)

    MobileBERT (Sun et al., 2020, arXiv:2004.02984, section 3.3) has ReLU for speed. The old one is found by
    what it computes, however it is spelled; of a gated feed-forward it is the gate's. tanh-gelu is within
    5e-4 of gelu and quick-gelu within 2e-2, so they may need no recovery; after others, recover with
    `distill`. Mixtures of experts keep theirs.

    from: the name of what is replaced. to: the name of what takes its place.
    where: "feed-forward", or "everywhere" one follows a product: poolers and heads too.
    """

    name: ClassVar[str] = "replace-activation"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    from_: str = "gelu"
    to: str = "relu"
    where: Literal["feed-forward", "everywhere"] = "feed-forward"

    def __post_init__(self) -> None:
        for option, name in (("from", self.from_), ("to", self.to)):
            if name not in NAMES:
                known = ", ".join(sorted(NAMES))
                raise ValueError(f"{option} is {name!r}, which is no activation; there are: {known}")
        if self.from_ == self.to:
            raise ValueError(f"from and to are both {self.to}: give two different ones")

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import prune

        found = self._found(program)
        chosen = [each for each in found if each.name == NAMES[self.from_]]
        if not chosen:
            raise PassError(f"nothing has the activation {self.from_} {self._there(found)}")
        replaced = 0
        for each in chosen:
            if context.allow(f"replace {self.from_} at {each.value.name} by {self.to}"):
                _replace(program, each, NAMES[self.to])
                replaced += 1
        if replaced:
            prune(program.graph)
        counted = Counter(SHOWN[each.name] for each in found if each not in chosen)
        notes = [f"{count} {name} stay{'s' * (count == 1)}" for name, count in counted.items()]
        statistics = {f"{self.from_} replaced by {self.to}": f"{replaced} of {len(chosen)}"}
        return Result(program, replaced > 0, statistics, tuple(notes))

    def _found(self, program: Program) -> list[Activation]:
        graph = view(program)
        blocks = recognise(graph)
        found = activations(graph, {linear.root: linear for linear in blocks.linear})
        if self.where == "everywhere":
            return found
        inside = {value for block in blocks.feed_forward for value in block.body}
        return [each for each in found if each.value in inside]

    def _there(self, found: list[Activation]) -> str:
        where = "after a product" if self.where == "everywhere" else "in a feed-forward"
        counted = Counter(SHOWN[each.name] for each in found)
        if not counted:
            return f"{where}: there is none"
        return f"{where}: there {', '.join(f'{n} times {name}' for name, n in counted.items())}"


def _replace(program: Program, old: Activation, name: str) -> None:
    """Another activation of the same operand for all that reads the old one."""
    import torch

    from ...ir.fx.graph import call

    aten = torch.ops.aten
    end: Node = old.value.native

    def calls(target: Any, *args: Any, **kwargs: Any) -> Node:
        return call(program.graph.graph, target, *args, before=end, **kwargs)

    def times(x: Node, factor: Any) -> Node:
        return calls(aten.mul.Tensor, x, factor)

    def plus(x: Node, *more: Any) -> Node:
        for other in more:
            x = calls(aten.add.Tensor, x, other)
        return x

    made: dict[str, Callable[[Node], Node]] = {
        "relu": lambda x: calls(aten.relu.default, x),
        "gelu": lambda x: calls(aten.gelu.default, x),
        "gelu_tanh": lambda x: calls(aten.gelu.default, x, approximate="tanh"),
        "quick_gelu": lambda x: times(x, calls(aten.sigmoid.default, times(x, 1.702))),
        "silu": lambda x: calls(aten.silu.default, x),
        "relu2": lambda x: calls(aten.pow.Tensor_Scalar, calls(aten.relu.default, x), 2),
        "tanh": lambda x: calls(aten.tanh.default, x),
        "sigmoid": lambda x: calls(aten.sigmoid.default, x),
        "softplus": lambda x: calls(aten.softplus.default, x),
        "mish": lambda x: times(x, calls(aten.tanh.default, calls(aten.softplus.default, x))),
        "elu": lambda x: plus(
            calls(aten.relu.default, x), calls(aten.exp.default, calls(aten.clamp.default, x, None, 0)), -1
        ),
        "hard_swish": lambda x: times(times(x, calls(aten.clamp.default, plus(x, 3), 0, 6)), 1 / 6),
        "leaky_relu": lambda x: calls(aten.maximum.default, x, times(x, 0.01)),
    }
    end.replace_all_uses_with(made[name](old.part.value.native))

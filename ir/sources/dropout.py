"""Dropout rates that a trace in evaluation mode does not show.

Attention is usually written `dropout_p=self.dropout if self.training else 0.0`, so that the trace has 0. The
module itself, called once in training mode, tells every rate; calls come in the order of the trace's nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..fx.mode import RATE, modal, set_argument
from ..fx.operators import packet
from .eager import REFUSALS, Eager

_DROPOUTS = {
    functional.dropout: "aten.dropout",
    functional.scaled_dot_product_attention: "aten.scaled_dot_product_attention",
}
_Call = tuple[str, float]  # operator, rate


def record_rates(eager: Eager, gm: GraphModule, tensors: Sequence[Tensor]) -> bool:
    """Gives the trace's dropouts, switched off as they are, the rates that the module trains with.

    Args:
        eager: the module that the trace is of. tensors: its example inputs, in order.
        gm: the trace, in evaluation mode; edited in place.

    Returns:
        Whether the calls in training mode were those in the trace. If not, the trace is left as it is.
    """
    nodes = [(node, name) for node, name in modal(gm) if packet(node) in _DROPOUTS.values()]
    if not nodes:
        return True
    calls = _calls(eager, tensors)
    if [kind for kind, _ in calls] != [packet(node) for node, _ in nodes]:
        return False
    for (node, name), (_, rate) in zip(nodes, calls, strict=True):
        if name == RATE:
            node.meta[RATE] = rate
        else:
            set_argument(node, "p", rate)
    gm.recompile()
    return True


def _calls(eager: Eager, tensors: Sequence[Tensor]) -> list[_Call]:
    """Every dropout that a forward in training mode does, in order; none if it cannot be done."""
    recorder = _Recorder()
    with _training(eager.module), recorder:
        try:
            eager(tensors)
        except REFUSALS:
            return []
    return recorder.calls


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.dropout:
            self.calls.append((_DROPOUTS[func], float(kwargs.get("p", args[1] if len(args) > 1 else 0.5))))
        elif func is functional.scaled_dot_product_attention:
            self.calls.append((_DROPOUTS[func], float(kwargs.get(RATE, args[4] if len(args) > 4 else 0.0))))
        return func(*args, **kwargs)

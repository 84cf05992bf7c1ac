"""Training and evaluation mode of an FX graph.

torch.export bakes the mode into operators' arguments, and `.train()` and `.eval()` of what it gives raise.
So the arguments are what a mode is: the flag of a dropout or a batch norm, and the dropout rate of a fused
attention, which has no flag. While that rate is off, its node keeps it in `meta["dropout_p"]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .graph import attribute

RATE = "dropout_p"  # of an attention: its argument's name, and where its node's meta keeps it meanwhile

# Operator -> the argument that says whether it trains.
_FLAGS = {
    f"aten.{name}": flag
    for flag, names in {
        "train": "dropout dropout_ feature_dropout feature_dropout_ alpha_dropout alpha_dropout_ "
        "feature_alpha_dropout feature_alpha_dropout_ native_dropout",
        "training": "batch_norm native_batch_norm rrelu rrelu_",
        "use_input_stats": "instance_norm",
    }.items()
    for name in names.split()
}
_RATES = {"aten.scaled_dot_product_attention": RATE}


def modal(gm: GraphModule) -> Iterator[tuple[Node, str]]:
    """Every node that works differently in training, and the argument that says so; inner graphs included."""
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            inner = attribute(gm, str(node.target))
            if isinstance(inner, GraphModule):
                yield from modal(inner)
        elif isinstance(node.target, torch._ops.OpOverload):
            name = str(node.target.overloadpacket)
            if says := _FLAGS.get(name) or _RATES.get(name):
                yield node, says


def trains(gm: GraphModule) -> bool:
    """Whether any node is in training mode."""
    return any(argument(node, name) for node, name in modal(gm))


def set_mode(gm: GraphModule, training: bool) -> int:
    """Puts every node of a graph in one mode, in place; returns how many were not in it."""
    changed = 0
    for node, name in modal(gm):
        old = argument(node, name)
        if name == RATE:
            if not training and old:
                node.meta[RATE] = old
            new: Any = (old or node.meta.get(RATE, 0.0)) if training else 0.0
        else:
            new = training
        if new != old:
            set_argument(node, name, new)
            changed += 1
    if changed:
        for module in gm.modules():
            if isinstance(module, GraphModule):
                module.recompile()
    return changed


def rate(node: Node) -> float | None:
    """What share a dropout or an attention drops in training; None of a node that drops nothing."""
    name = str(getattr(node.target, "overloadpacket", ""))
    if name in _RATES:
        return float(argument(node, RATE) or node.meta.get(RATE, 0.0))
    return float(argument(node, "p")) if "dropout" in name else None


def argument(node: Node, name: str) -> Any:
    """An operator's argument by its schema's name, its default if it is not given."""
    position = _position(node, name)
    if position < len(node.args):
        return node.args[position]
    target: Any = node.target
    return node.kwargs.get(name, target._schema.arguments[position].default_value)


def set_argument(node: Node, name: str, value: Any) -> None:
    """Sets an argument of an operator by its schema's name, wherever it stands; a default need not stand."""
    position = _position(node, name)
    target: Any = node.target
    if position < len(node.args):
        node.args = (*node.args[:position], value, *node.args[position + 1 :])
    else:
        given = {**node.kwargs, name: value}
        if value == target._schema.arguments[position].default_value:
            del given[name]
        node.kwargs = given


def _position(node: Node, name: str) -> int:
    target: Any = node.target
    return next(i for i, argument in enumerate(target._schema.arguments) if argument.name == name)

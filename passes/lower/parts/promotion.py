"""Types promoted by what the graph says of its values: torch's exporter computes every shape once more to see
which operands are, a fifth of a lowering.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.fx import Node
from torch.onnx._internal.fx.passes import type_promotion

_Interpreter = type_promotion._TypePromotionInterpreter
_run_node = _Interpreter.run_node


@contextmanager
def as_stated() -> Iterator[None]:
    """In here torch's exporter computes the shapes of those nodes alone that it adds or changes."""
    with patch.object(_Interpreter, "run_node", _promoted):
        yield


def _promoted(interpreter: Any, node: Node) -> Any:
    """What a node gives, its operands promoted."""
    if node.op != "call_function" or "val" not in node.meta:
        return _run_node(interpreter, node)
    with interpreter._set_current_node(node):
        if rule := type_promotion.get_type_promotion_rule(node, interpreter.type_promotion_table):
            interpreter._maybe_promote_node(node, rule)
    return node.meta["val"]

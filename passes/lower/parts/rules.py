"""onnxscript's rules of rewriting, tried where they can hold: it matches each of its fifty at every node, a
sixth of a lowering.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from onnxscript.rewriter import RewriteRule

_try_rewrite = RewriteRule.try_rewrite


@contextmanager
def by_operator() -> Iterator[None]:
    """In here onnxscript tries a rule at nodes of the operator alone that its pattern ends with."""
    with patch.object(RewriteRule, "try_rewrite", _tried):
        yield


def _tried(rule: RewriteRule, model: Any, graph: Any, node: Any, **options: Any) -> Any:
    """What a rule makes of the pattern that ends with a node; None where it doesn't hold."""
    last = rule._target_pattern.output_nodes[0]
    if not (last.op.matches(node.op_type) and last.domain.matches(node.domain)):
        return None
    return _try_rewrite(rule, model, graph, node, **options)

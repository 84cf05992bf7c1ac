"""A rule of onnxscript's is tried at the operator that it ends with, and holds there as before."""

from unittest.mock import patch

from graphwright.passes.lower.parts import rules
from handmade import parsed
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter import RewriteRule

# Both scales are ones, of which one stands behind; the casts are one after another.
BODY = """
    one = Constant<value_float = 1.0> () a = Mul (x, one) b = Mul (one, a)
    c = Cast<to = 11> (b) d = Cast<to = 1> (c) y = Relu (d)
"""


def test_rules_hold_as_without():
    program = parsed(BODY, "float[n,4] x", "float[n,4] y")
    asked, without = [], program.clone()

    def seen(rule, model, graph, node, **options):
        asked.append((str(rule._target_pattern.output_nodes[0].op), node.op_type))
        return tried(rule, model, graph, node, **options)

    tried = rules._try_rewrite
    with patch.object(rules, "_try_rewrite", seen), rules.by_operator():
        optimize_ir(program.graph)
    assert RewriteRule.try_rewrite is tried  # as it was
    optimize_ir(without.graph)
    assert ("Cast", "Cast") in asked
    assert ("Relu", "Relu") in asked
    assert not {(rule, node) for rule, node in asked if rule != node and rule.isidentifier()}
    assert "Mul" not in [node.op_type for node in program.graph.graph]
    assert program.fingerprint() == without.fingerprint()

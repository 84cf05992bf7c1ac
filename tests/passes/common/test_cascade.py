"""A run piece by piece: the same values as a run at once, changed weights from where they change, and nothing
kept that no later node reads."""

import numpy as np
from graphwright.ir.execute import observe
from graphwright.passes.common.cascade import Cascade
from handmade import parsed

BODY = """
    a = MatMul (x, first) b = Relu (a) n = Neg (x) c = MatMul (b, second) d = Add (c, n) s = Shape (x)
    e = Reshape (d, s) y = MatMul (e, first)
"""
RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.standard_normal((16, 16)).astype(np.float32) for name in ("first", "second")}
FEEDS = [{"x": RNG.standard_normal((rows, 16)).astype(np.float32)} for rows in (1, 5, 3)]


def program():
    return parsed(BODY, "float[batch,16] x", "float[batch,16] y", WEIGHTS)


def products(made):
    return [node for node in made.graph.graph if node.op_type == "MatMul"]


def test_values_are_those_of_a_run_at_once():
    made = program()
    cascade = Cascade(made, FEEDS, threads=1)
    expected = list(observe(made, ["b", "e"], FEEDS, 1))
    for node, name in zip(products(made), ("x", "b", "e"), strict=True):
        for number, array in enumerate(cascade.before(node, node.inputs[0])):
            whole = FEEDS[number]["x"] if name == "x" else expected[number][name]
            np.testing.assert_allclose(array, whole, atol=1e-5)


def test_a_changed_weight_counts_from_the_next_node_on():
    made = program()
    cascade = Cascade(made, FEEDS, threads=1)
    first, second, last = products(made)
    assert len(list(cascade.before(second, second.inputs[0]))) == 3
    for name in ("first", "second"):
        cascade.change(made.graph.graph.initializers[name], np.eye(16, dtype=np.float32))
    found = list(cascade.before(last, last.inputs[0]))
    for feed, array in zip(FEEDS, found, strict=True):
        behind = np.maximum(feed["x"] @ WEIGHTS["first"], 0)  # ran before the change
        np.testing.assert_allclose(array, behind - feed["x"], atol=1e-5)
    assert cascade.place(first) < cascade.place(second) < cascade.place(last)


def test_only_what_later_nodes_read_is_kept():
    made = program()
    cascade = Cascade(made, FEEDS, threads=1)
    kept = []
    for node in products(made):
        list(cascade.before(node, node.inputs[0]))
        kept.append(set(cascade._states[0]))
    assert kept == [{"x"}, {"b", "x", "n"}, {"e"}]
    assert set(FEEDS[0]) == {"x"}  # the caller's feeds stay whole

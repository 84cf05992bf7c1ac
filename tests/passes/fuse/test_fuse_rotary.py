"""fuse-rotary: rotations of queries and keys against the formula, and those the operator cannot express."""

import numpy as np
import pytest
from fusing import fused, same, weights
from graphwright.ir.execute import execute
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.fuse.fuse_rotary import FuseRotary
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed

F32 = np.float32
TOLERANCE = 2e-6  # float32 rounding of values of a few units
HEADS, SIZE = 2, 8
FREQUENCIES = (10.0 ** (-np.arange(4) / 2)).astype(F32)

PROJECTIONS = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
APART = """
    qs = Reshape(q, split) qh = Transpose<perm = [0, 2, 1, 3]>(qs)
    ks = Reshape(k, split) kh = Transpose<perm = [0, 2, 1, 3]>(ks)
    vs = Reshape(v, split) vh = Transpose<perm = [0, 2, 1, 3]>(vs)
"""
ANGLES = """
    n = Shape<start = 1, end = 2>(x) number = Squeeze(n) places = Range(nought, number, step)
    pf = Cast<to = 1>(places) p1 = Unsqueeze(pf, last_axis) a = Mul(p1, {frequencies})
"""
TABLES = """
    both = Concat<axis = 1>(a, {other}) c0 = Cos(both) s0 = Sin(both)
    cos = Unsqueeze(c0, lead) sin = Unsqueeze(s0, lead)
"""
HALVES = (
    "{x}1 = Slice({x}h, zero, four, axis) {x}2 = Slice({x}h, four, eight, axis) {x}n = Neg({x}2) "
    "{x}t = Concat<axis = 3>({x}n, {x}1) {x}c = Mul({x}h, cos) {x}d = Mul({x}t, sin) {x}r = Add({x}c, {x}d)"
)
REST = """
    kx = Transpose<perm = [0, 1, 3, 2]>(kr) qk = MatMul(qr, kx) scores = Mul(qk, scale)
    p = Softmax<axis = -1>(scores) o = MatMul(p, vh) ot = Transpose<perm = [0, 2, 1, 3]>(o)
    context = Reshape(ot, merge) y = MatMul(context, wo)
"""
CONSTANTS = {
    "split": np.array([0, 0, HEADS, SIZE]), "merge": np.array([0, 0, HEADS * SIZE]), "scale": F32(0.5),
    "nought": np.array(0), "step": np.array(1), "last_axis": np.array([1]), "lead": np.array([0, 1]),
    "zero": np.array([0]), "four": np.array([4]), "eight": np.array([8]), "axis": np.array([3]),
    "frequencies": FREQUENCIES, "others": FREQUENCIES * F32(3), "two": F32(2),
    **weights(scale=0.5, wq=(6, 16), wk=(6, 16), wv=(6, 16), wo=(16, 6)),
}  # fmt: skip


def program(turn=HALVES, other="a", tables=TABLES, apart=APART, more=""):
    body = " ".join(
        (
            PROJECTIONS, apart, ANGLES.format(frequencies="frequencies"), more, tables.format(other=other),
            turn.format(x="q"), turn.format(x="k"), REST,
        )
    )  # fmt: skip
    return parsed(body, "float[batch,length,6] x", "float[batch,length,6] y", CONSTANTS)


def reference(x):
    """RoFormer (Su et al., 2021, arXiv:2104.09864, section 3.2.2), pairs (i, i + size / 2), in float64."""
    w = {name: CONSTANTS[name].astype(np.float64) for name in ("wq", "wk", "wv", "wo")}
    batch, length, _ = x.shape
    q, k, v = (
        (x @ w[name]).reshape(batch, length, HEADS, SIZE).transpose(0, 2, 1, 3) for name in ("wq", "wk", "wv")
    )
    turn = np.exp(1j * np.arange(length)[:, None] * FREQUENCIES.astype(np.float64))
    q, k = ((z[..., :4] + 1j * z[..., 4:]) * turn for z in (q, k))
    scores = np.einsum("bhid,bhjd->bhij", q, k.conj()).real / 2
    p = np.exp(scores - scores.max(-1, keepdims=True))
    context = (p / p.sum(-1, keepdims=True)) @ v
    return context.transpose(0, 2, 1, 3).reshape(batch, length, -1) @ w["wo"]


def test_rotations_are_the_formula():
    result = fused(FuseRotary(), program(), TOLERANCE)
    assert dict(result.statistics) == {"rotations fused": "2 of 2"}
    assert operators(result.program).count("RotaryEmbedding") == 2
    assert "Neg" not in operators(result.program)
    assert result.program.graph.opset_imports[""] == 23
    for shape in ((1, 1, 6), (3, 11, 6)):
        x = np.random.default_rng(1).standard_normal(shape).astype(F32)
        (found,) = execute(result.program, [{"x": x}])
        np.testing.assert_allclose(found["y"], reference(x.astype(np.float64)), atol=1e-5, rtol=0)


def test_golden():
    before = program()
    after = FuseRotary().run(before.clone(), Context()).program
    golden("fuse/fuse-rotary", before_and_after(before, after))


def test_a_fused_attention_reads_it_without_transposes():
    turned = FuseRotary().run(program().clone(), Context()).program
    result = FuseAttention().run(turned.clone(), Context())
    assert result.statistics["attentions fused"] == "1 of 1", result.notes
    assert "Softmax" not in operators(result.program)
    same(program(), result.program, TOLERANCE)


NEAR_MISSES = {
    "unequal angles in a pair": (
        {"more": "z = Mul(p1, others)", "other": "z"},
        "the two features of a pair are turned by different angles",
    ),
    "turned the other way in one half": (
        {"turn": HALVES.replace("Concat<axis = 3>({x}n, {x}1)", "Concat<axis = 3>({x}2, {x}1)")},
        None,
    ),
    "halves in the wrong order": (
        {"turn": HALVES.replace("Concat<axis = 3>({x}n, {x}1)", "Concat<axis = 3>({x}1, {x}n)")},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_stay_whole(case):
    options, reason = NEAR_MISSES[case]
    result = fused(FuseRotary(), program(**options), TOLERANCE)
    assert not result.modified
    assert "RotaryEmbedding" not in operators(result.program)
    if reason is not None:
        assert len(result.notes) == 2
        assert reason in result.notes[0]


def test_nothing_to_do():
    body = parsed("y = Relu(x)", opset=18)
    result = FuseRotary().run(body, Context())
    assert dict(result.statistics) == {"rotations fused": "0 of 0"}
    assert not result.modified

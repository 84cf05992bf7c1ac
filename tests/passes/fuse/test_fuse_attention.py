"""fuse-attention: every mask in every way it is written, held to float64 NumPy and to the graph before."""

import merged
import numpy as np
import onnx
import pytest
from fusing import fused, same, weights
from graphwright.ir.execute import execute
from graphwright.ir.sources.onnx_file import from_onnx
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import before_and_after, golden, operators, parsed
from hypothesis import assume, given, settings
from hypothesis import strategies as st

F32 = np.float32
TOLERANCE = 1e-5  # float32 rounding of scores and outputs of up to twenty
LOWEST = np.finfo(F32).min
HEADS, SIZE = 2, 4

PROJECTIONS = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
HEADS_APART = """
    qs = Reshape(q, split) qh = Transpose<perm = [0, 2, 1, 3]>(qs)
    ks = Reshape(k, split) kh = Transpose<perm = [0, 2, 3, 1]>(ks)
    vs = Reshape(v, split) vh = Transpose<perm = [0, 2, 1, 3]>(vs)
"""
SCORES = "qk = MatMul(qh, kh) scores = Mul(qk, scale)"
OUT = """
    c = MatMul(p, vh) ct = Transpose<perm = [0, 2, 1, 3]>(c) context = Reshape(ct, merge)
    y = MatMul(context, wo)
"""
PLACES = """
    size = Shape<start = 1, end = 2>(x) number = Squeeze(size) range = Range(nought, number, step)
    rows = Unsqueeze(range, last) columns = Unsqueeze(range, first)
"""
SOFTMAX = "p = Softmax<axis = -1>({scores})"
GUARDED = "s = Softmax<axis = -1>({scores}) none = IsNaN(s) p = Where(none, open, s)"
NO_ZERO = "context: a row without keys gives zero in it, and NaN in MultiHeadAttention"
CONSTANTS = {
    "split": np.array([0, 0, HEADS, SIZE]), "merge": np.array([0, 0, HEADS * SIZE]), "scale": F32(0.5),
    "nought": np.array(0), "step": np.array(1), "last": np.array([1]), "first": np.array([0]),
    "middle": np.array([1, 2]), "open": F32(0), "one": F32(1), "reach": np.array(1),
    "slope": np.array([0.5, -0.25], F32).reshape(HEADS, 1, 1), "minus": F32(-0.5), "root": F32(0.5**0.5),
    **weights(scale=1.0, wq=(6, 8), wk=(6, 8), wv=(6, 8), wo=(8, 6)),
}  # fmt: skip


def program(middle="", scores="scores", *, fill=LOWEST, outputs="", opset=18, **parts):
    body = " ".join(
        (
            parts.get("projections", PROJECTIONS),
            parts.get("heads", HEADS_APART),
            parts.get("products", SCORES),
            middle,
            parts.get("softmax", SOFTMAX.format(scores=scores)),
            parts.get("out", OUT),
        )
    )
    masked = ", int64[batch,length] mask" if "mask" in middle else ""
    return parsed(
        body,
        f"float[batch,length,6] x{masked}",
        f"float[batch,length,6] y{outputs}",
        {**CONSTANTS, "fill": F32(fill), **parts.get("constants", {})},
        opset=opset,
    )


def fuse(*args, kernel="auto", **kwargs):
    return fused(FuseAttention(kernel=kernel), program(*args, **kwargs), TOLERANCE)


def masked(padding, causal, window, alibi, over):
    """(operators, name of the masked scores) of a mask in one of the ways that models write it."""
    lines, conditions, name = [PLACES if causal or window or alibi else ""], [], "scores"
    if padding:
        lines.append("m4 = Unsqueeze(mask, middle) seen = Cast<to = 9>(m4)")
        conditions.append("seen")
    if causal:
        lines.append("past = LessOrEqual(columns, rows)")
        conditions.append("past")
    if window:
        lines.append("apart = Sub(rows, columns) far = Abs(apart) near = LessOrEqual(far, reach)")
        conditions.append("near")
    if alibi:
        lines.append("d = Sub(columns, rows) df = Cast<to = 1>(d) b = Mul(df, slope) biased = Add(scores, b)")
        name = "biased"
    if conditions:
        keep = conditions[0]
        for number, other in enumerate(conditions[1:]):
            lines.append(f"and{number} = And({keep}, {other})")
            keep = f"and{number}"
        if over:
            lines.append(f"hidden = Where({keep}, {name}, fill)")
        else:
            lines.append(f"added = Where({keep}, open, fill) hidden = Add({name}, added)")
        name = "hidden"
    return " ".join(lines), name


def reference(x, mask, padding, causal, window, alibi):
    """(result, which rows see a key) in float64, from the formula (Vaswani et al., 2017, section 3.2.1)."""
    w = {name: CONSTANTS[name].astype(np.float64) for name in ("wq", "wk", "wv", "wo")}
    batch, length, _ = x.shape
    q, k, v = (
        (x.astype(np.float64) @ w[name]).reshape(batch, length, HEADS, SIZE).transpose(0, 2, 1, 3)
        for name in ("wq", "wk", "wv")
    )
    scores = q @ k.swapaxes(-1, -2) / 2
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    if alibi:
        scores = scores + distance * CONSTANTS["slope"].astype(np.float64)
    keep = np.ones((batch, 1, length, length), bool)
    keep &= mask.astype(bool)[:, None, None] if padding else True
    keep &= distance <= 0 if causal else True
    keep &= np.abs(distance) <= 1 if window else True
    scores = np.where(keep, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        y = (p @ v).transpose(0, 2, 1, 3).reshape(batch, length, HEADS * SIZE) @ w["wo"]
    return y, keep.any(-1)[:, 0]


MASKS = st.integers(1, 3).flatmap(
    lambda batch: st.integers(1, 6).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, 1), min_size=length, max_size=length), min_size=batch, max_size=batch
        )
    )
)


@settings(max_examples=40, deadline=None)
@given(
    MASKS, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([LOWEST, -np.inf, -1e4]), st.sampled_from(["attention", "multi-head"]),
)  # fmt: skip
def test_any_mask(mask, padding, causal, window, alibi, over, guarded, fill, kernel):
    """Padding, causal, window, bias per head, and their sums; rows without any key included."""
    mask = np.array(mask)
    x = np.random.default_rng(mask.size).standard_normal((*mask.shape, 6)).astype(F32)
    expected, sees = reference(x, mask, padding, causal, window, alibi)
    # 10,000 is small enough for a row without keys to go by its scores, and costs them three digits
    assume(fill != -1e4 or sees.all())
    middle, scores = masked(padding, causal, window, alibi, over)
    softmax = GUARDED if guarded else SOFTMAX
    before = program(middle, softmax=softmax.format(scores=scores), fill=fill)
    result = FuseAttention(kernel=kernel).run(before.clone(), Context())
    if kernel == "multi-head" and guarded and fill == -np.inf and (padding or causal or window):
        assert result.notes == (NO_ZERO,)
        return
    assert result.statistics["attentions fused"] == "1 of 1", result.notes
    feed = {"x": x, "mask": mask} if padding else {"x": x}
    (found,) = execute(result.program, [feed])
    np.testing.assert_allclose(found["y"][sees], expected[sees], atol=1e-5, rtol=0)
    (kept,) = execute(before, [feed])
    blind = np.isnan(kept["y"])
    np.testing.assert_allclose(found["y"][~blind], kept["y"][~blind], atol=1e-5, rtol=0)
    assert not found["y"][blind].any() or (kernel == "multi-head" and np.isnan(found["y"][blind]).all())


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
def test_rows_without_keys_that_give_zero(kernel):
    """Probabilities that are NaN become zero in the graph: one kernel does so, the other does not."""
    middle, scores = masked(True, False, False, False, False)
    before = program(middle, softmax=GUARDED.format(scores=scores), fill=-np.inf)
    feed = {"x": np.ones((2, 3, 6), F32), "mask": np.array([[0, 0, 0], [1, 1, 0]])}
    result = fused(FuseAttention(kernel=kernel), before, TOLERANCE, [feed])
    assert result.notes == (() if kernel == "attention" else (NO_ZERO,))


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
def test_a_mask_that_is_subtracted(kernel):
    middle = (
        "m = Unsqueeze(mask, middle) f = Cast<to = 1>(m) i = Sub(one, f) l = Mul(i, far) h = Sub(scores, l)"
    )
    result = fuse(middle, "h", constants={"far": F32(1e4)}, kernel=kernel)
    assert result.statistics["attentions fused"] == "1 of 1", result.notes


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
def test_golden(kernel):
    ones = {name: np.eye(6, 8, dtype=F32) for name in ("wq", "wk", "wv")}
    middle, scores = masked(True, False, False, False, False)
    before = program(middle, scores, constants={**ones, "wo": np.eye(8, 6, dtype=F32)})
    after = FuseAttention(kernel=kernel).run(before.clone(), Context()).program
    golden(f"fuse/fuse-attention-{kernel}", before_and_after(before, after))


SPELLINGS = {
    "scaled by division": {"products": "qk = MatMul(qh, kh) scores = Div(qk, two)"},
    "query scaled before": {"products": "qz = Mul(qh, scale) scores = MatMul(qz, kh)"},
    "both scaled by a root": {
        "products": "qz = Mul(qh, root) kz = Mul(kh, root) scores = MatMul(qz, kz)"
    },
    "projection scaled": {
        "projections": "q0 = MatMul(x, wq) q = Mul(q0, scale) k = MatMul(x, wk) v = MatMul(x, wv)",
        "products": "scores = MatMul(qh, kh)",
    },
    "keys turned later": {
        "heads": HEADS_APART.replace("[0, 2, 3, 1]>(ks)", "[0, 2, 1, 3]>(ks)").replace("kh =", "ku ="),
        "products": "kh = Transpose<perm = [0, 1, 3, 2]>(ku) " + SCORES,
    },
    "softmax by hand": {
        "softmax": "top = ReduceMax<keepdims = 1>(scores, minus_one) low = Sub(scores, top) e = Exp(low) "
        "total = ReduceSum<keepdims = 1>(e, minus_one) p = Div(e, total)"
    },
}  # fmt: skip


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling, kernel):
    constants = {"two": F32(2), "minus_one": np.array([-1])}
    result = fuse(**SPELLINGS[spelling], constants=constants, kernel=kernel)
    assert result.statistics["attentions fused"] == "1 of 1", result.notes
    assert {"Attention", "MultiHeadAttention"} & set(operators(result.program))
    assert "Softmax" not in operators(result.program)


CAPPED = "qk = MatMul(qh, kh) z = Mul(qk, scale) r = Div(z, two) t = Tanh(r) scores = Mul(t, two)"


def test_capped_scores_stay_capped_before_the_mask():
    """Gemma 2's order, and Attention's: cap, then mask. Scores here are far beyond the cap."""
    middle, scores = masked(True, True, False, True, False)
    result = fuse(middle, scores, products=CAPPED, constants={"two": F32(2)})
    assert result.statistics["attentions fused"] == "1 of 1", result.notes
    (node,) = [node for node in result.program.graph.graph if node.op_type == "Attention"]
    assert node.attributes["softcap"].as_float() == 2
    assert "Tanh" not in operators(result.program)


def test_an_old_opset_gets_the_runtime_s_kernel():
    result = fuse(opset=17)
    assert "MultiHeadAttention" in operators(result.program)
    assert "MultiHeadAttention was used: the model imports opset 17" in result.notes[0]
    insisted = fuse(opset=17, kernel="attention")
    assert insisted.statistics["attentions fused"] == "0 of 1"
    assert "no attention was fused: the model imports opset 17" in insisted.notes[0]


NEAR_MISSES = {
    "its probabilities are an output": (
        {"outputs": f", float[batch,{HEADS},length,length] p"},
        "its probabilities are an output of the model",
    ),
    "its scale is negative": (
        {"products": SCORES.replace("scale", "minus")},
        "its scale is -0.5, and kernels take positive ones only",
    ),
    "its scores are capped, and the kernel caps none": (
        {"products": CAPPED, "constants": {"two": F32(2)}, "kernel": "multi-head"},
        "its scores are capped at 2, which MultiHeadAttention does not do",
    ),
    "its scores are multiplied by a mask": (
        {"middle": PLACES + "past = LessOrEqual(columns, rows) b = Cast<to = 1>(past) sb = Mul(scores, b) "
         "i = Sub(one, b) l = Mul(i, far) h = Add(sb, l)", "scores": "h", "constants": {"far": F32(-1e4)}},
        "its scores are multiplied by the mask 'b', which no kernel does",
    ),
    "its mask hides queries": (
        {"middle": "m = Unsqueeze(mask, sides) f = Cast<to = 1>(m) i = Sub(one, f) l = Mul(i, fill) "
         "h = Add(scores, l)", "scores": "h", "constants": {"sides": np.array([1, 3])}},
        "hides queries, not keys",
    ),
    "two ways of hiding": (
        {"middle": "m = Unsqueeze(mask, middle) s = Cast<to = 9>(m) a = Where(s, open, fill) "
         "h = Add(scores, a) " + PLACES + "past = LessOrEqual(columns, rows) hh = Where(past, h, fill)",
         "scores": "hh"},
        "two masks hide keys, one added to the scores and one written over them",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_stay_whole_and_say_why(case):
    options, reason = NEAR_MISSES[case]
    result = fuse(**options)
    assert not result.modified
    assert reason in " ".join(result.notes)
    assert result.statistics["attentions fused"] == "0 of 1"


def test_no_attention_at_all():
    result = FuseAttention().run(parsed("y = Relu(x)"), Context())
    assert not result.modified
    assert result.statistics["attentions fused"] == "0 of 0"


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
def test_layers_share_one_mask(kernel):
    """The mask of two attentions over one stream is written once."""
    middle, scores = masked(True, True, False, False, False)
    second = " ".join((PROJECTIONS, HEADS_APART, SCORES, "hidden = Add(scores, added)", SOFTMAX, OUT))
    second = second.format(scores="hidden").replace("MatMul(x, ", "MatMul(y, ")
    names = "q k v qs qh ks kh vs vh qk scores hidden p c ct context y".split()
    renamed = dict(zip(names, (f"{name}_2" for name in names), strict=True))
    text = "".join(renamed.get(word, word) for word in _words(second)).replace("MatMul(y_2, w", "MatMul(y, w")
    body = " ".join((PROJECTIONS, HEADS_APART, SCORES, middle, SOFTMAX.format(scores=scores), OUT, text))
    before = parsed(
        body, "float[batch,length,6] x, int64[batch,length] mask", "float[batch,length,6] y_2",
        {**CONSTANTS, "fill": F32(LOWEST)},
    )  # fmt: skip
    result = fused(FuseAttention(kernel=kernel), before, TOLERANCE)
    assert result.statistics["attentions fused"] == "2 of 2", result.notes
    kernels = [n for n in result.program.graph.graph if n.op_type in ("Attention", "MultiHeadAttention")]
    assert kernels[0].inputs[-1] is kernels[1].inputs[-1]
    same(before, result.program, TOLERANCE)


def _words(text):
    word = ""
    for letter in text:
        if letter.isalnum() or letter == "_":
            word += letter
        else:
            yield word
            yield letter
            word = ""
    yield word


def test_masks_that_hide_by_a_thousand_million_beside_one_written_over_the_scores(tmp_path):
    """Older models add -1e9 where a key is padding and write -1e9 where it is later: a query that sees no key
    takes the mean of all of them, which no one mask of a kernel says."""
    nodes = merged.Nodes()
    logits = merged.decoder(nodes, "input_ids", "attention_mask", None)[0]
    nodes.named(logits, "logits")
    sizes = ["batch", "length"]
    inputs = [
        onnx.helper.make_tensor_value_info(name, merged.INT, sizes)
        for name in ("input_ids", "attention_mask")
    ]
    output = onnx.helper.make_tensor_value_info("logits", merged.FLOAT, [*sizes, merged.VOCABULARY])
    onnx.save(merged.model(nodes.made, inputs, [output], merged.weights()), tmp_path / "m.onnx")
    program = from_onnx(tmp_path / "m.onnx")
    step = Pipeline.parse("fold-constants,fuse-attention").run(program).steps[1]
    assert step.status == "no change"
    assert "two masks hide keys" in step.notes[0]


def test_scores_beside_learned_ones_stay_as_they_are():
    """gpt-oss: a kernel's softmax would be over the keys alone."""
    beside = """
        rows = Shape<start = 0, end = 3>(qk) sizes = Concat<axis = 0>(rows, last_one)
        sinks = Expand(sink, sizes) both = Concat<axis = -1>(scores, sinks)
    """
    cut = "all = Softmax<axis = -1>({scores}) p = Slice(all, from, to, along)"
    held = {
        "sink": np.array([1, -1], F32).reshape(1, HEADS, 1, 1), "last_one": np.array([1]),
        "from": np.array([0]), "to": np.array([-1]), "along": np.array([3]),
    }  # fmt: skip
    given = program(beside, "both", softmax=cut.format(scores="both"), constants=held)
    result = FuseAttention().run(given, Context())
    assert result.statistics == {"attentions fused": "0 of 1"}
    assert any("learned scores beside the keys' (sinks), which no kernel takes" in n for n in result.notes)
    assert result.program is given

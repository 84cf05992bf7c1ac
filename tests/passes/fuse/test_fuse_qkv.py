"""fuse-qkv: projections of one activation become one product, whoever else is in the pipeline."""

import numpy as np
import onnx_ir
import pytest
from fusing import fused, same, weights
from graphwright.backends.target import named
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.fuse.fuse_qkv import FuseQkv
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from handmade import before_and_after, golden, operators, parsed
from hypothesis import given, settings
from hypothesis import strategies as st

F32 = np.float32
TOLERANCE = 1e-6  # the same sums; only how the kernel blocks them may differ

PROJECTIONS = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
ATTENTION = """
    qs = Reshape(q, split) qh = Transpose<perm = [0, 2, 1, 3]>(qs)
    ks = Reshape(k, split) kh = Transpose<perm = [0, 2, 3, 1]>(ks)
    vs = Reshape(v, split) vh = Transpose<perm = [0, 2, 1, 3]>(vs)
    qk = MatMul(qh, kh) scores = Mul(qk, scale) p = Softmax<axis = -1>(scores) c = MatMul(p, vh)
    ct = Transpose<perm = [0, 2, 1, 3]>(c) context = Reshape(ct, merge)
"""
OUT = "y = MatMul(context, wo)"
CONSTANTS = {
    "split": np.array([0, 0, 2, 4]),
    "merge": np.array([0, 0, 8]),
    "scale": np.float32(0.5),
    **weights(wq=(6, 8), wk=(6, 8), wv=(6, 8), wo=(8, 6)),
}


def program(projections=PROJECTIONS, rest=OUT, constants=None, inputs="", outputs=""):
    return parsed(
        f"{projections} {ATTENTION} {rest}",
        f"float[batch,length,6] x{inputs}",
        f"float[batch,length,6] y{outputs}",
        {**CONSTANTS, **(constants or {})},
    )


def fuse(*args, **kwargs):
    return fused(FuseQkv(), program(*args, **kwargs), TOLERANCE)


BIASED = "qm = MatMul(x, wq) q = Add(qm, bq) k = MatMul(x, wk) vm = MatMul(x, wv) v = Add(bv, vm)"
BIASES = weights(bq=(8,), bv=(8,))


def test_golden():
    small = {name: np.round(array[:2], 1) for name, array in weights(wq=(6, 8), wk=(6, 8), wv=(6, 8)).items()}
    before = parsed(
        f"{BIASED} {ATTENTION} y = MatMul(context, wo)",
        "float[batch,length,2] x",
        "float[batch,length,2] y",
        {**CONSTANTS, **small, **weights(wo=(8, 2)), "bq": np.ones(8, F32), "bv": np.full(8, 2, F32)},
    )  # fmt: skip
    after = FuseQkv().run(before.clone(), Context()).program
    golden("fuse/fuse-qkv", before_and_after(before, after))


def test_three_projections_become_one():
    result = fuse()
    assert dict(result.statistics) == {"projections merged": "3 of 3", "into products": 1}
    assert operators(result.program)[:2] == ["MatMul", "Split"]
    assert operators(result.program).count("MatMul") == 4  # scores, context, out


def test_one_that_lacks_a_bias_gets_zeros():
    result = fuse(BIASED, constants=BIASES)
    assert operators(result.program)[:3] == ["MatMul", "Add", "Split"]
    bias = result.program.graph.graph.initializers["q.merged.bias"].const_value.numpy()
    np.testing.assert_array_equal(bias, np.concatenate([BIASES["bq"], np.zeros(8), BIASES["bv"]]))


def test_weights_stored_transposed_and_as_gemm():
    """As PyTorch stores them, (out, in), behind a Transpose or inside a Gemm on flattened rows."""
    gemm = """
        rows = Reshape(x, flat) qf = Gemm<transB = 1>(rows, wqt, bq) q = Reshape(qf, back)
        turned = Transpose<perm = [1, 0]>(wkt) k = MatMul(x, turned) v = MatMul(x, wv)
    """
    constants = {
        "flat": np.array([-1, 6]), "back": np.array([2, -1, 8]), "wqt": CONSTANTS["wq"].T.copy(),
        "wkt": CONSTANTS["wk"].T.copy(), **BIASES,
    }  # fmt: skip
    before = program(gemm, constants=constants)
    feeds = [{"x": np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32)}]
    result = fused(FuseQkv(), before, TOLERANCE, feeds)
    assert result.statistics["projections merged"] == "3 of 3", result.notes
    assert "Gemm" not in operators(result.program)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda groups: st.tuples(st.just(groups), st.integers(1, 3), st.integers(2, 6))
    ),
    st.booleans(),
    st.integers(0, 100),
)
def test_grouped_heads_of_any_size(sizes, biased, seed):
    """k and v have fewer heads than q, each repeated `groups` times (Ainslie et al., 2023)."""
    groups, kv_heads, size = sizes
    heads = groups * kv_heads
    repeat = """
        k4 = Reshape(k, kv_split) kt = Transpose<perm = [0, 2, 1, 3]>(k4) k5 = Unsqueeze(kt, two)
        ke = Expand(k5, copies) kh0 = Reshape(ke, all_heads) kh = Transpose<perm = [0, 1, 3, 2]>(kh0)
        v4 = Reshape(v, kv_split) vt = Transpose<perm = [0, 2, 1, 3]>(v4) v5 = Unsqueeze(vt, two)
        ve = Expand(v5, copies) vh = Reshape(ve, all_heads)
        q4 = Reshape(q, split) qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        qk = MatMul(qh, kh) scores = Mul(qk, scale) p = Softmax<axis = -1>(scores) c = MatMul(p, vh)
        ct = Transpose<perm = [0, 2, 1, 3]>(c) context = Reshape(ct, merge) y = MatMul(context, wo)
    """
    constants = {
        "split": np.array([0, 0, heads, size]), "kv_split": np.array([0, 0, kv_heads, size]),
        "all_heads": np.array([0, heads, -1, size]), "merge": np.array([0, 0, heads * size]),
        "two": np.array([2]), "copies": np.array([1, 1, groups, 1, 1]), "scale": np.float32(0.5),
        **weights(seed, wq=(6, heads * size), wk=(6, kv_heads * size), wv=(6, kv_heads * size)),
        **weights(seed, wo=(heads * size, 6), bq=(heads * size,), bv=(kv_heads * size,)),
    }  # fmt: skip
    body = f"{BIASED if biased else PROJECTIONS} {repeat}"
    before = parsed(body, "float[batch,length,6] x", "float[batch,length,6] y", constants)
    result = fused(FuseQkv(), before, TOLERANCE)
    assert result.statistics["projections merged"] == "3 of 3", result.notes
    split = next(node for node in result.program.graph.graph if node.op_type == "Split")
    assert split.inputs[1].const_value.numpy().tolist() == [heads * size, kv_heads * size, kv_heads * size]


def test_cross_attention_merges_keys_and_values():
    result = fuse("q = MatMul(x, wq) k = MatMul(z, wk) v = MatMul(z, wv)", inputs=", float[batch,keys,6] z")
    assert dict(result.statistics) == {"projections merged": "2 of 3", "into products": 1}
    assert result.notes == ("context: its q reads a value that no other reads",)


NEAR_MISSES = {
    "a weight that the call gives": (
        {"projections": PROJECTIONS.replace("wk", "given"), "inputs": ", float[6,8] given"},
        "context: its k is no product with a constant matrix",
        2,
    ),
    "a weight used by something else": (
        {"rest": "o = MatMul(context, wo) t = MatMul(x, wq) s = ReduceSum(t, last) y = Add(o, s)",
         "constants": {"last": np.array([-1])}},
        "the weight 'wq' is used by 't' too, and would be kept twice",
        0,
    ),
    "a weight that is an output": (
        {"rest": f"{OUT} w = Identity(wv)", "outputs": ", float[6,8] w"},
        "the weight 'wv' is an output of the model too",
        0,
    ),
    "one weight for two": (
        {"projections": PROJECTIONS.replace("wk", "wq")}, "its q and k and v share a weight", 0
    ),
    "weights computed in the graph": (
        {"projections": f"wn = Neg(wq) {PROJECTIONS.replace('wq', 'wn')}"},
        "its q stays apart, its weight is computed by neg in the graph: run fold-constants first",
        2,
    ),
    "a product that is an output": (
        {"projections": BIASED, "constants": BIASES, "outputs": ", float[batch,length,8] qm"},
        "its q stays apart, 'qm' inside it is an output of the model",
        2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_stay_apart_and_say_why(case):
    options, reason, merged = NEAR_MISSES[case]
    result = fuse(**options)
    assert reason in " ".join(result.notes)
    assert result.statistics["projections merged"].startswith(f"{merged} of")


def layers(shared):
    """Two attentions, one after the other, with weights of their own or shared."""
    second = f"{PROJECTIONS} {ATTENTION} z = MatMul(context, wo)"
    for name in "q k v qs qh ks kh vs vh qk scores p c ct context".split():
        second = second.replace(f" {name} =", f" {name}2 =").replace(f"({name},", f"({name}2,")
        second = second.replace(f", {name})", f", {name}2)").replace(f"({name})", f"({name}2)")
    second = f" {second.strip()}".replace(" q =", " q2 =").replace("(x,", "(y0,")
    if not shared:
        for name in ("wq", "wk", "wv"):
            second = second.replace(name, f"{name}_2")
    body = f"{PROJECTIONS} {ATTENTION} y0 = MatMul(context, wo) {second.replace('z =', 'y =')}"
    more = {} if shared else weights(seed=7, wq_2=(6, 8), wk_2=(6, 8), wv_2=(6, 8))
    return parsed(body, "float[batch,length,6] x", "float[batch,length,6] y", {**CONSTANTS, **more})


@pytest.mark.parametrize("shared", [False, True])
def test_layers_that_share_weights_share_the_merged_one(shared):
    result = fused(FuseQkv(), layers(shared), TOLERANCE)
    assert dict(result.statistics) == {"projections merged": "6 of 6", "into products": 2}
    names = [name for name in result.program.graph.graph.initializers if name.endswith("merged.weight")]
    assert len(names) == (1 if shared else 2)


def test_merged_weights_are_read_one_layer_at_a_time():
    """Nothing is put together before it is asked for, and nothing is kept after."""
    result = FuseQkv().run(layers(shared=False).clone(), Context())
    tensors = [
        value.const_value
        for name, value in result.program.graph.graph.initializers.items()
        if name.endswith("merged.weight")
    ]
    assert all(isinstance(tensor, onnx_ir.LazyTensor) for tensor in tensors)
    assert tensors[0].numpy() is not tensors[0].numpy()


def test_gates_on_request():
    body = "g = MatMul(x, wg) s = Sigmoid(g) a = Mul(g, s) u = MatMul(x, wu) m = Mul(a, u) y = MatMul(m, wd)"
    shapes = weights(wg=(6, 10), wu=(6, 10), wd=(10, 6))
    before = parsed(body, "float[batch,length,6] x", "float[batch,length,6] y", shapes)
    assert dict(FuseQkv().run(before.clone(), Context()).statistics)["projections merged"] == "0 of 0"
    result = fused(FuseQkv(gates=True), before, TOLERANCE)
    assert dict(result.statistics) == {"projections merged": "2 of 2", "into products": 1}


def test_an_old_split_is_said():
    before = parsed("y = Relu(x)", opset=12)
    result = FuseQkv().run(before, Context())
    assert result.notes == ("the model imports opset 12, and 13 has the Split it takes",)


@pytest.mark.parametrize("kernel", ["attention", "multi-head"])
def test_with_fused_attention_in_either_order(kernel):
    before = program(BIASED, constants=BIASES)
    first = FuseQkv().run(before.clone(), Context()).program
    one = FuseAttention(kernel=kernel).run(first.clone(), Context())
    assert one.statistics["attentions fused"] == "1 of 1", one.notes
    same(before, one.program, 2e-6)
    attended = FuseAttention(kernel=kernel).run(before.clone(), Context()).program
    other = FuseQkv().run(attended.clone(), Context())
    assert other.statistics["projections merged"] == "3 of 3", other.notes
    same(before, other.program, 2e-6)


def test_quantize_dynamic_takes_the_merged_product():
    constants = {
        **CONSTANTS, "split": np.array([0, 0, 2, 16]), "merge": np.array([0, 0, 32]),
        **weights(wq=(32, 32), wk=(32, 32), wv=(32, 32), wo=(32, 32), bq=(32,), bv=(32,)),
    }  # fmt: skip
    before = parsed(
        f"{BIASED} {ATTENTION} {OUT}", "float[batch,length,32] x", "float[batch,length,32] y", constants
    )
    merged = FuseQkv().run(before.clone(), Context()).program
    quantize = QuantizeDynamic(min_cosine=0.0, scale="tensor")
    context = Context(target=named("x86-64-vnni"))
    apart = quantize.run(before.clone(), context)
    result = quantize.run(merged.clone(), context)
    assert apart.statistics["products in int8"] == 4
    assert result.statistics["products in int8"] == 2, result.notes
    assert operators(result.program)[:3] == ["DynamicQuantizeLinear", "MatMulIntegerToFloat", "Split"]
    # a scale per output feature: the very same integers, side by side
    same(apart.program, result.program, 1e-5)

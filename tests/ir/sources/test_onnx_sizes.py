"""Axes of ONNX inputs: apart where the file names them so, fixed where the graph fixes them."""

import numpy as np
import pytest
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.inputs.extents import extents, told
from graphwright.ir.inputs.probe import probes
from graphwright.ir.view import view
from onnx import numpy_helper, parser

RNG = np.random.default_rng(0)


def captured(tmp_path, body, signature, opset=18, **weights):
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> m {signature} {{ {body} }}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(w, np.float32 if np.asarray(w).dtype == float else None), name)
        for name, w in weights.items()
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    program = capture(tmp_path / "m.onnx")
    execute(program, probes(program, 0))  # whatever is said to be free can be anything
    return program


def shapes(program):
    return {spec.name: spec.shape for spec in program.inputs}


TABLE = RNG.standard_normal((50, 8))
CASES = {
    "Conv": ("y = Conv(x, k)", "(float[n,c,h,w] x) => (float[n,a,b,d] y)",
             {"k": RNG.standard_normal((5, 4, 1, 1))}, ("n", 4, "h", "w")),
    "grouped Conv": ("y = Conv<group=2>(x, k)", "(float[n,c,h,w] x) => (float[n,a,b,d] y)",
                     {"k": RNG.standard_normal((6, 2, 1, 1))}, ("n", 4, "h", "w")),
    "ConvTranspose": ("y = ConvTranspose(x, k)", "(float[n,c,h] x) => (float[n,a,b] y)",
                      {"k": RNG.standard_normal((5, 3, 2))}, ("n", 5, "h")),
    "MatMul": ("y = MatMul(x, k)", "(float[n,t,c] x) => (float[n,t,d] y)",
               {"k": RNG.standard_normal((6, 3))}, ("n", "t", 6)),
    "Gemm": ("y = Gemm<transB=1>(x, k)", "(float[n,c] x) => (float[n,d] y)",
             {"k": RNG.standard_normal((3, 6))}, ("n", 6)),
    "LSTM": ("y = LSTM<hidden_size=2>(x, k, r)", "(float[t,n,c] x) => (float[t,d,n,e] y)",
             {"k": RNG.standard_normal((1, 8, 3)), "r": RNG.standard_normal((1, 8, 2))}, ("t", "n", 3)),
    "a norm": ("y = LayerNormalization(x, k)", "(float[n,t,c] x) => (float[n,t,d] y)",
               {"k": RNG.standard_normal(7)}, ("n", "t", 7)),
    "a constant added": ("y = Add(x, k)", "(float[n,t,c] x) => (float[n,t,d] y)",
                         {"k": RNG.standard_normal((1, 9, 1))}, ("n", 9, "c")),
    "a product of one axis": ("f = Flatten(x) y = MatMul(f, k)", "(float[n,c,4] x) => (float[n,d] y)",
                              {"k": RNG.standard_normal((12, 3))}, ("n", 3, 4)),
    "a shape in numbers": ("y = Reshape(x, s)", "(float[n,t,8] x) => (float[a,b,2,4] y)",
                           {"s": np.array([2, 5, 2, 4])}, (2, 5, 8)),
    "one behind another": ("r = Relu(x) y = MatMul(r, k) z = Add(r, x)",
                           "(float[n,t,c] x) => (float[n,t,d] y)", {"k": RNG.standard_normal((6, 3))},
                           ("n", "t", 6)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_the_graph_fixes_is_fixed(tmp_path, case):
    body, signature, weights, wanted = CASES[case]
    assert shapes(captured(tmp_path, body, signature, **weights))["x"] == wanted


def test_a_weight_of_one_row_fixes_nothing(tmp_path):
    program = captured(tmp_path, "y = Add(x, k)", "(float[n,t] x) => (float[n,t] y)", k=np.ones((1, 1)))
    assert shapes(program)["x"] == ("n", "t")


def test_axes_that_must_be_equal_are_one(tmp_path):
    program = captured(tmp_path, "y = Add(x, z)", "(float[n,t] x, float[m,s] z) => (float[n,t] y)")
    assert len({*shapes(program)["x"], *shapes(program)["z"]}) == 2
    assert shapes(program)["x"] == shapes(program)["z"]


def test_words_stay_apart_from_the_tokens_that_they_point_to(tmp_path):
    body = """e = Gather(table, input_ids) o = Constant<value=int64[1] {2}>() p = Unsqueeze(word_positions, o)
              f = Gather<axis=1>(e, z) w = Cast<to=1>(word_positions) v = Unsqueeze(w, o) y = Add(f, v)"""
    signature = """(int64[batch,sequence] input_ids, int64[batch,words] word_positions)
                   => (float[batch,k,8] y)"""
    program = captured(tmp_path, body, signature, table=TABLE, z=np.array([0]))
    assert shapes(program) == {"input_ids": ("batch", "length"), "word_positions": ("batch", "words")}


def test_the_lengths_of_two_towers_stay_apart(tmp_path):
    body = """q = Gather(table, query_ids) d = Gather(table, document_ids)
              t = Transpose<perm=[0,2,1]>(d) y = MatMul(q, t)"""
    signature = """(int64[batch,query_length] query_ids, int64[batch,document_length] document_ids)
                   => (float[batch,a,b] y)"""
    assert shapes(captured(tmp_path, body, signature, table=TABLE)) == {
        "query_ids": ("batch", "length"), "document_ids": ("batch", "document_length")
    }  # fmt: skip


@pytest.mark.parametrize(
    "axes", ["batch,sequence", "?,?", "input_ids_dynamic_axes_1,input_ids_dynamic_axes_2"]
)
def test_ids_and_their_mask_share_their_axes_however_they_are_called(tmp_path, axes):
    body = "e = Gather(table, input_ids) f = Cast<to=1>(mask) g = Unsqueeze(f, z) y = Mul(e, g)"
    signature = f"""(int64[{axes}] input_ids, int64[{axes.replace("input_ids", "mask")}] mask)
                    => (float[a,b,8] y)"""
    program = captured(tmp_path, body, signature, table=TABLE, z=np.array([2]))
    assert set(shapes(program).values()) == {("batch", "length")}


def test_sizes_are_inferred_where_the_file_says_others(tmp_path):
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 18]> m (float[n,4,3] x) => (float[n,i,j] y)
           <float[9,9] f, float[9,9,9] r> { f = Flatten(x) r = Unsqueeze(f, o) y = Relu(r) }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "o"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = {value.name: value.shape for value in view(capture(tmp_path / "m.onnx"))}
    assert (found["f"], found["r"]) == (("n", 12), ("n", 1, 12))


@pytest.mark.parametrize(
    ("last", "wanted"),
    [("a = Mul(t, t) l = Div(a, t)", ("4*n", "t", "t")), ("l = Mul(t, one)", ("4*n", "t", "t")),
     ("a = Add(t, one) l = Div(a, one)", ("4*n", "t", "unk__1"))],  # onnx's name of what it does not know
)  # fmt: skip
def test_sizes_that_are_multiplied_and_divided_are_known(tmp_path, last, wanted):
    """Bloom and DETR merge batch and heads by a shape that they compute."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]> m (float[n,4,t,t] x) => (float[i,j,k] y)
            {{ n = Shape<start=0,end=1>(x) t = Shape<start=2,end=3>(x) m = Mul(n, four) {last}
               s = Concat<axis=0>(m, t, l) r = Reshape(x, s) y = Relu(r) }}"""
    )
    for name, value in (("four", 4), ("one", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = {value.name: value.shape for value in view(capture(tmp_path / "m.onnx"))}
    assert found["r"] == wanted


def test_a_size_that_the_graph_asks_for_is_told_with_the_node_that_does(tmp_path):
    program = captured(tmp_path, *CASES["MatMul"][:2], **CASES["MatMul"][2])
    assert told(program) == [
        "n is free",
        "t is free",
        "x: axis 2 of 6 is fixed (the graph's 'y' takes no other size)",
    ]
    assert [(e.name, e.size, e.kind) for e in extents(program)] == [
        ("x", "n", "free"), ("x", "t", "free"), ("x", 6, "fixed"),
        ("y", "n", "free"), ("y", "t", "free"), ("y", 3, "fixed"),
    ]  # fmt: skip
    assert "notes" not in program.info


def test_the_reason_of_a_size_is_that_of_the_one_it_must_equal(tmp_path):
    body, signature = "s = Add(x, z) y = MatMul(s, k)", "(float[n,c] x, float[n,d] z) => (float[n,e] y)"
    program = captured(tmp_path, body, signature, k=RNG.standard_normal((6, 3)))
    assert shapes(program) == {"x": ("n", 6), "z": ("n", 6)}
    reasons = {e.name: e.reason for e in extents(program) if e.axis == 1 and e.name in "xz"}
    assert reasons == dict.fromkeys("xz", "the graph's 'y' takes no other size")


def test_where_positions_end_and_what_convolutions_need_is_told(tmp_path):
    body = """e = Gather(table, input_ids) s = Shape<start=1,end=2>(input_ids)
              p = Slice(places, z, s, z) y = Add(e, p)"""
    signature = "(int64[batch,sequence] input_ids) => (float[batch,sequence,8] y)"
    program = captured(
        tmp_path, body, signature, table=TABLE, places=RNG.standard_normal((24, 8)), z=np.array([0])
    )
    assert told(program) == ["batch is free", "length is 1 to 24 (a table of positions ends at 24)"]
    program = captured(
        tmp_path, "y = Conv(x, k)", "(float[n,4,t] x) => (float[n,a,b] y)", k=RNG.standard_normal((2, 4, 5))
    )
    assert told(program)[1] == "t is 5 or more (its convolutions need 5)"


def test_rows_and_lengths_that_the_file_fixes_are_a_warning_with_the_mend(tmp_path):
    body = "e = Gather(table, input_ids) f = Cast<to=1>(mask) g = Unsqueeze(f, z) y = Mul(e, g)"
    signature = "(int64[1,16] input_ids, int64[1,16] mask) => (float[1,16,8] y)"
    program = captured(tmp_path, body, signature, table=TABLE, z=np.array([2]))
    assert program.info["notes"] == [
        "axis 0 of 'input_ids', 'mask' is fixed at 1 and axis 1 of 'input_ids', 'mask' is fixed at 16, as "
        "the file states it: other calls are refused; for those, export the model anew with dynamic axes."
    ]
    assert told(program)[0] == "input_ids: axis 0 of 1, axis 1 of 16 are fixed (the file states it)"


def test_of_features_the_rows_alone_are_warned_of(tmp_path):
    program = captured(tmp_path, "y = Relu(x)", "(float[2,5,4] x) => (float[2,5,4] y)")
    (note,) = program.info["notes"]
    assert note.startswith("axis 0 of 'x' is fixed at 2, as the file states it")

"""Functions read where their indices say, however often those are divided: TVM 0.27's own flattening doesn't
(findings/tvm-flattening-divides-wrongly-after-an-offset.sh)."""

import numpy as np
import onnx
import onnx_ir
import pytest
import tvm
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.schedule.indices import flattening_right
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te

EXTENT = 48


def reading(index):
    """A module of one function, in which result[i] is source[index(i)], and how far source goes."""
    values = [index(i) for i in range(EXTENT)]
    source = te.placeholder((max(values) - min(values) + 1,), "float32", "source")
    result = te.compute((EXTENT,), lambda i: source[index(i) - min(values)], "result")
    module = tvm.IRModule({"main": te.create_prim_func([source, result])})
    return module, np.arange(min(values), max(values) + 1, dtype=np.float32)


def read(module, source):
    result = tvm.runtime.tensor(np.full(EXTENT, np.nan, np.float32))
    tvm.compile(module, target="llvm")["main"](tvm.runtime.tensor(source), result)
    return result.numpy()


INDICES = {
    "a row of repeated ones": lambda i: i // 16 * 8 + (i % 16 + 1) // 2,
    "before the first": lambda i: (i % 16 - 1) // 2,
    "twice": lambda i: ((i % 12 + 5) // 3 + 1) // 2,
    "backwards": lambda i: (0 - i // 4) // 3,
    "backwards from a number": lambda i: (7 - i // 4) // 3 * 2,
    "backwards, around the end": lambda i: (0 - (i + 1) % 12) // 2 % 3,
    "by a negative number": lambda i: i % -16 // -4,
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index_is_read_where_it_says(name):
    module, source = reading(INDICES[name])
    assert read(flattening_right(module), source).tolist() == [INDICES[name](i) for i in range(EXTENT)]


SIZE, OFFSET, SIGN = st.integers(2, 12), st.integers(-9, 9), st.sampled_from([-1, 1])


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.tuples(SIZE, SIZE, SIZE), st.tuples(OFFSET, OFFSET), SIGN, *[st.booleans()] * 4)
def test_any_index_is_read_where_it_says(sizes, offsets, sign, rest, again, outer, rows):
    a, b, c = sizes

    def index(i):
        inner = (i % a if rest else i // a) * sign + offsets[0]
        inner = (inner // b if again else inner % b) + offsets[1]
        return (inner // c if outer else inner % c) + (i // a * (a // b) if rows else 0)

    module, source = reading(index)
    assert read(flattening_right(module), source).tolist() == [index(i) for i in range(EXTENT)]


def test_a_module_is_not_edited_and_what_is_right_is_left_alone():
    wrong, plain = reading(INDICES["twice"])[0], reading(lambda i: i // 3 * 2 + i % 16)[0]
    kept = wrong["main"]
    assert not flattening_right(wrong)["main"].same_as(kept)
    assert wrong["main"].same_as(kept)
    assert flattening_right(plain)["main"].same_as(plain["main"])


# Funnel's decoder: the first token, and all others twice, over what came before them.
REPEATED = """<ir_version: 10, opset_import: ["": 18]>
g (float[3, 8, 32] x, float[3, 16, 32] y) => (float[3, 16, 32] result)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {8}, int64[1] two = {2},
 int64[4] twice = {1, 1, 2, 1}, int64[3] flat = {0, 14, 32}, int64[6] after = {0, 0, 0, 0, 1, 0}> {
    first = Slice (x, zero, one, one)
    others = Slice (x, one, end, one)
    each = Unsqueeze (others, two)
    both = Expand (each, twice)
    rows = Reshape (both, flat)
    padded = Pad (rows, after)
    all = Concat <axis = 1> (first, padded)
    result = Add (all, y)
}"""
BACK = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] front = {-1000}"
BACKWARDS = f"""<ir_version: 10, opset_import: ["": 18]>
g (float[3, 16, 8] x, float[384] y) => (float[384] result)
<{BACK}, int64[1] flat = {{384}}> {{
    row = Reshape (x, flat)
    turned = Slice (row, last, front, zero, last)
    sum = Add (turned, y)
    first = Slice (sum, zero, one, zero)
    all = Concat <axis = 0> (first, sum)
    most = Slice (all, zero, flat, zero)
    result = Add (most, y)
}}"""
TWICE_BACKWARDS = f"""<ir_version: 10, opset_import: ["": 18]>
g (float[2, 9, 4] x, float[3, 24] y) => (float[3, 24] result)
<{BACK}, int64[2] flat = {{3, 24}}> {{
    turned = Slice (x, last, front, one, last)
    sum = Add (turned, x)
    rows = Reshape (sum, flat)
    again = Slice (rows, last, front, one, last)
    result = Add (again, y)
}}"""


def repeated(x, y):
    others = np.repeat(x[:, 1:], 2, 1)
    return np.concatenate([x[:, :1], others, np.zeros_like(x[:, :1])], 1) + y


def backwards(x, y):
    total = x.reshape(-1)[::-1] + y
    return np.concatenate([total[:1], total])[:384] + y


def twice_backwards(x, y):
    return (x[:, ::-1] + x).reshape(3, 24)[:, ::-1] + y


@pytest.mark.parametrize(
    ("text", "exact"), [(REPEATED, repeated), (BACKWARDS, backwards), (TWICE_BACKWARDS, twice_backwards)]
)
def test_what_moves_in_one_function_arrives(text, exact):
    model = onnx.parser.parse_model(text)
    shapes = {i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in model.graph.input}
    specs = tuple(InputSpec(name, "float32", shape, "other") for name, shape in shapes.items())
    program = Program(onnx_ir.from_proto(model), "onnx", specs, ("result",), symbols={})
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    built = Tvm().build(program, threads=2, buckets=[{}])
    assert np.array_equal(built.run(feed)["result"], exact(feed["x"], feed["y"]))

"""Canonical passes on ONNX: texts before and after, what must not match, and names that must stay."""

import numpy as np
import onnx_ir
import pytest
from graphwright.ir.errors import PipelineError
from graphwright.passes.canonical.fold_constants import FoldConstants
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from handmade import before_and_after, golden, operators, parsed

F32 = np.float32
X3 = "float[batch,length,4] x"
Y3 = "float[batch,length,4] y"


def after(text, program, status="applied"):
    """Run with verification: the numbers are checked on probe inputs by the manager."""
    run = Pipeline.parse(text).run(program)
    assert run.ok, run.steps[0].error
    assert run.steps[-1].status == status
    return run.program


def notes(text, program):
    return "\n".join(Pipeline.parse(text).run(program).steps[0].notes)


GOLDEN = {
    "fold-constants": parsed(
        """
        two = Constant<value_float = 2.0>()
        half = Div(one, two)
        grown = Mul(half, row)
        shifted = Add(x, grown)
        dims = Shape(shifted)
        last = Constant<value_ints = [2]>()
        width = Gather(dims, last)
        as_float = Cast<to = 1>(width)
        root = Sqrt(as_float)
        y = Div(shifted, root)
        """,
        X3,
        Y3,
        {"one": np.ones((), F32), "row": np.arange(4, dtype=F32)},
    ),
    "eliminate-common-subexpressions": parsed(
        """
        a = Add(x, first)
        b = Add(second, x)
        c = Sub(x, first)
        d = Sub(first, x)
        e = Relu(a)
        f = Relu(b)
        g = Mul(e, f)
        h = Mul(c, d)
        y = Add(g, h)
        """,
        X3,
        Y3,
        {"first": np.arange(4, dtype=F32), "second": np.arange(4, dtype=F32)},
    ),
    "eliminate-dead-code": parsed(
        """
        a = Add(x, used)
        b = Mul(a, unused)
        c = Relu(b)
        y = Relu(a)
        """,
        X3,
        Y3,
        {"used": np.ones(4, F32), "unused": np.full(4, 2, F32)},
    ),
    "eliminate-identities": parsed(
        """
        a = Identity(x)
        b = Add(a, zero)
        c = Mul(one, b)
        d = Cast<to = 1>(c)
        e = Transpose<perm = [0, 2, 1]>(d)
        f = Transpose<perm = [0, 2, 1]>(e)
        g = Unsqueeze(f, axis)
        h = Squeeze(g, axis)
        i = Cast<to = 11>(h)
        j = Cast<to = 1>(i)
        k = Reshape(j, keep)
        l, unused = Dropout(k)
        m = Slice(l, start, end, axis)
        n = Expand(m, ones)
        o = Concat<axis = 1>(n)
        p = Relu(o)
        y = Identity(p)
        """,
        X3,
        Y3,
        {
            "zero": np.zeros(4, F32), "one": np.ones((), F32), "axis": np.array([1]),
            "keep": np.array([0, -1, 4]), "start": np.array([0]),
            "end": np.array([np.iinfo(np.int64).max]), "ones": np.array([1, 4]),
        },
    ),
    "specialise-shapes{batch=2,length=6}": parsed(
        """
        dims = Shape(x)
        zero = Constant<value_int = 0>()
        batch = Gather(dims, zero)
        one = Constant<value_int = 1>()
        length = Gather(dims, one)
        axes = Constant<value_ints = [0]>()
        b = Unsqueeze(batch, axes)
        l = Unsqueeze(length, axes)
        heads = Constant<value_ints = [2, 2]>()
        split = Concat<axis = 0>(b, l, heads)
        r = Reshape(x, split)
        t = Transpose<perm = [0, 2, 1, 3]>(r)
        step = Constant<value_int = 1>()
        positions = Range(zero, length, step)
        p = Cast<to = 1>(positions)
        column = Unsqueeze(p, axes_last)
        y = Add(t, column)
        """,
        X3,
        "float[batch,2,length,2] y",
        {"axes_last": np.array([1])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text):
    program = GOLDEN[text]
    before = program.fingerprint()
    found = after(text, program)
    golden(f"canonical/{text.partition('{')[0]}", before_and_after(program, found))
    assert program.fingerprint() == before


@pytest.mark.parametrize("text", GOLDEN)
def test_twice_is_once(text):
    name = text.partition("{")[0]
    if name != "specialise-shapes":  # whose symbols are gone the second time
        after(name, after(name, GOLDEN[text]), status="no change")


@pytest.mark.parametrize("text", [text for text in GOLDEN if "specialise" not in text])
def test_any_number_of_rewrites_leaves_a_valid_program(text):
    """What bisection relies on."""
    total = 0

    def limited(limit):
        def allow(rewrite):
            nonlocal total
            total += 1
            return total <= limit

        return allow

    for limit in range(20):
        total = 0
        run = Pipeline.parse(text).run(GOLDEN[text], Context(allow=limited(limit)))
        assert run.ok, (limit, run.steps[0].error)


def test_symbols_that_were_fixed_are_gone():
    program = after("specialise-shapes{length=6}", GOLDEN["specialise-shapes{batch=2,length=6}"])
    assert program.inputs[0].shape == ("batch", 6, 4)
    assert list(program.symbols) == ["batch"]
    assert program.graph.graph.inputs[0].shape == onnx_ir.Shape(["batch", 6, 4])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("specialise-shapes{others=((rows,3),)}", "no input has a symbol 'rows' (there are: batch, length)"),
        ("specialise-shapes{length=65}", "length=65 is outside what the model takes, 1 to 64"),
    ],
)
def test_shapes_that_cannot_be(text, words):
    run = Pipeline.parse(text).run(GOLDEN["specialise-shapes{batch=2,length=6}"])
    assert isinstance(run.steps[0].error, PipelineError)
    assert words in str(run.steps[0].error)


# --- fold-constants -----------------------------------------------------------------------------------

BIG = np.arange(512 * 1024, dtype=F32).reshape(512, 1024)  # 2 MiB, above max_bytes


def transposed(extra="y = MatMul(x, turned)", weight=BIG):
    return parsed(
        f"turned = Transpose(weight)\n{extra}",
        "float[batch,1024] x",
        "float[batch,512] y",
        {"weight": weight},
    )


def test_a_large_weight_is_transformed_when_it_is_read():
    program = after("fold-constants", transposed(weight=BIG / BIG.size))
    weight = program.graph.graph.initializers["turned"].const_value
    assert operators(program) == ["MatMul"]
    assert list(program.graph.graph.initializers) == ["turned"]
    assert isinstance(weight, onnx_ir.LazyTensor)
    np.testing.assert_array_equal(weight.numpy(), (BIG / BIG.size).T)


def test_a_small_weight_is_transformed_at_once():
    weight = after("fold-constants{max_bytes=4000000}", transposed(weight=BIG / BIG.size))
    assert isinstance(weight.graph.graph.initializers["turned"].const_value, onnx_ir.Tensor)


def test_a_weight_with_other_uses_is_not_copied():
    program = transposed(
        "a = MatMul(x, turned)\nb = MatMul(a, weight)\ny = MatMul(b, turned)", BIG / BIG.size
    )
    assert "Transpose" in operators(after("fold-constants", program, status="no change"))
    assert "Transpose 'turned' stays: its weight 'weight' has other uses" in notes("fold-constants", program)


def test_no_large_result_from_small_operands():
    program = parsed(
        "mask = ConstantOfShape(size)\ny = Add(x, mask)",
        "float[1024,1024] x",
        "float[1024,1024] y",
        {"size": np.array([1024, 1024])},
    )
    program = after("fold-constants", program, status="no change")
    assert "it would add 4194304 bytes" in notes("fold-constants", program)
    assert operators(after("fold-constants{max_bytes=5000000}", program)) == ["Add"]


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("r = RandomNormal<shape = [4]>()\nz = Mul(r, zero)\ny = Add(x, z)", {"zero": np.zeros((), F32)}),
        (
            "w = DequantizeLinear(q, scale)\ny = Mul(x, w)",
            {"q": np.arange(4, dtype=np.int8), "scale": np.array(0.5, F32)},
        ),
        ("y = Relu(x)", {}),
    ],
)
def test_what_is_not_folded(body, weights):
    after("fold-constants", parsed(body, X3, Y3, weights), status="no change")


def test_a_constant_output_stays_a_node():
    program = parsed(
        "y = Neg(row)\nz = Relu(x)", X3, "float[4] y, float[batch,length,4] z", {"row": np.ones(4, F32)}
    )
    assert operators(after("fold-constants", program, status="no change")) == ["Neg", "Relu"]


def test_an_initializer_that_callers_may_override_is_no_constant():
    program = parsed("s = Neg(scale)\ny = Mul(x, s)", f"{X3}, float[4] scale", Y3)
    value = program.graph.graph.inputs[1]
    value.const_value = onnx_ir.tensor(np.ones(4, F32), name="scale")
    program.graph.graph.register_initializer(value)
    result = FoldConstants().run(program.clone(), Context())
    assert not result.modified
    assert operators(result.program) == ["Neg", "Mul"]


def test_sizes_known_in_part():
    """Of a shape (batch, length, 4) only the 4 is fixed."""
    program = parsed(
        """
        dims = Shape(x)
        batch = Gather(dims, zero)
        width = Gather(dims, two)
        size = Concat<axis = 0>(batch, rest, width)
        y = Reshape(x, size)
        """,
        X3,
        Y3,
        {"zero": np.array([0]), "two": np.array([2]), "rest": np.array([-1])},
    )
    program = after("fold-constants", program)
    assert operators(program) == ["Shape", "Gather", "Concat", "Reshape"]
    np.testing.assert_array_equal(program.graph.graph.initializers["width"].const_value.numpy(), [4])


# --- identities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Add(x, c)", {"c": np.array([0, 0, 0, 1], F32)}),
        ("y = Sub(c, x)", {"c": np.zeros(4, F32)}),
        ("y = Div(c, x)", {"c": np.ones(4, F32)}),
        ("a = Cast<to = 10>(x)\ny = Cast<to = 1>(a)", {}),  # through float16: rounds
        ("a = Cast<to = 7>(x)\ny = Cast<to = 1>(a)", {}),  # through int64: truncates
        ("a = Transpose<perm = [0, 2, 1]>(x)\nb = Relu(a)\ny = Transpose<perm = [0, 2, 1]>(b)", {}),
        ("y, mask = Dropout(x, half, yes)", {"half": np.array(0.0, F32), "yes": np.array(True)}),
        ("a = Softmax(x)\nb = IsNaN(a)\ny = Where(b, zero, a)", {"zero": np.zeros((), F32)}),
    ],
)
def test_near_identities(body, weights):
    after("eliminate-identities", parsed(body, X3, Y3, weights), status="no change")


def test_adding_zero_that_enlarges_is_no_identity():
    program = parsed("y = Add(x, c)", "float[batch,1] x", "float[batch,4] y", {"c": np.zeros(4, F32)})
    after("eliminate-identities", program, status="no change")


def test_reshape_that_moves_is_no_identity():
    program = parsed("y = Reshape(x, c)", X3, "float[length,batch,4] y", {"c": np.array([-1, 1, 4])})
    after("eliminate-identities", program, status="no change")


def test_an_input_cannot_take_an_outputs_name():
    program = parsed("y = Identity(x)\nz = Relu(x)", X3, f"{Y3}, float[batch,length,4] z")
    after("eliminate-identities", program, status="no change")


def test_two_outputs_of_one_value():
    program = parsed("a = Relu(x)\ny = Identity(a)\nz = Identity(a)", X3, f"{Y3}, float[batch,length,4] z")
    program = after("eliminate-identities", program)
    assert operators(program) == ["Relu", "Identity"]
    assert [value.name for value in program.graph.graph.outputs] == ["y", "z"]


def test_transposes_and_reshapes_in_a_row_become_one():
    program = parsed(
        """
        a = Transpose<perm = [1, 0, 2]>(x)
        b = Transpose<perm = [0, 2, 1]>(a)
        c = Reshape(b, flat)
        y = Reshape(c, wide)
        """,
        X3,
        "float[rows,2] y",
        {"flat": np.array([-1]), "wide": np.array([-1, 2])},
    )
    program = after("eliminate-identities,eliminate-dead-code", program)
    assert operators(program) == ["Transpose", "Reshape"]
    assert program.graph.graph[0].attributes["perm"].as_ints() == (1, 2, 0)


def test_a_reshape_that_copies_sizes_needs_the_one_before_it():
    program = parsed(
        "a = Reshape(x, pairs)\ny = Reshape(a, copy)",
        "float[batch,4] x",
        "float[batch,2,2] y",
        {"pairs": np.array([-1, 2]), "copy": np.array([-1, 0, 2])},
    )
    assert operators(after("eliminate-identities", program, status="no change")) == ["Reshape", "Reshape"]


# --- common subexpressions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "a = Softmax<axis = -1>(x)\nb = Softmax<axis = 1>(x)\ny = Sub(a, b)",
        "a = Sub(x, k)\nb = Sub(k, x)\ny = Mul(a, b)",
        "a = RandomNormalLike(x)\nb = RandomNormalLike(x)\nc = Mul(a, b)\nd = Sub(c, c)\ny = Add(x, d)",
    ],
)
def test_what_is_not_merged(body):
    program = parsed(body, X3, Y3, {"k": np.ones(4, F32)})
    after("eliminate-common-subexpressions", program, status="no change")


def test_merged_outputs_keep_their_names():
    program = parsed("y = Relu(x)\nz = Relu(x)", X3, f"{Y3}, float[batch,length,4] z")
    program = after("eliminate-common-subexpressions", program)
    assert operators(program) == ["Relu", "Identity"]
    assert [value.name for value in program.graph.graph.outputs] == ["y", "z"]


def test_equal_weights_of_another_type_stay_apart():
    weights = {
        "a": np.zeros(4, F32),
        "b": np.zeros(4, np.int32),
        "c": np.zeros((1, 4), F32),
        "d": -np.zeros(4, F32),
    }
    body = "p = Cast<to = 1>(b)\nq = Add(x, a)\nr = Add(q, p)\ns = Add(r, c)\ny = Add(s, d)"
    program = after("eliminate-common-subexpressions", parsed(body, X3, Y3, weights), status="no change")
    assert set(program.graph.graph.initializers) == set(weights)


def test_weights_that_agree_in_the_sample_only():
    first = np.zeros(100_000, F32)
    second = first.copy()
    second[1] = 1.0
    program = parsed(
        "a = Add(x, first)\ny = Add(a, second)",
        "float[batch,100000] x",
        "float[batch,100000] y",
        {"first": first, "second": second},
    )
    after("eliminate-common-subexpressions", program, status="no change")


# --- dead code ----------------------------------------------------------------------------------------


def test_what_a_subgraph_uses_stays():
    program = parsed(
        """
        outer = Relu(x)
        idle = Neg(x)
        y = If(flag) <
            then_branch = yes () => (float[batch,length,4] a) { dead = Abs(outer) a = Add(outer, one) },
            else_branch = no () => (float[batch,length,4] b) { b = Identity(x) }
        >
        """,
        X3,
        Y3,
        {"flag": np.array(True), "one": np.ones(4, F32), "two": np.ones(4, F32)},
    )
    program = after("eliminate-dead-code", program)
    assert operators(program) == ["Relu", "If"]
    branch = program.graph.graph[1].attributes["then_branch"].as_graph()
    assert [node.op_type for node in branch] == ["Add"]
    assert set(program.graph.graph.initializers) == {"flag", "one"}


def test_inputs_stay_used_or_not():
    program = parsed("y = Relu(x)", f"{X3}, float[4] ignored", Y3)
    after("eliminate-dead-code", program, status="no change")


@pytest.mark.parametrize(
    ("decode", "kept"),
    [
        ("wide = Cast<to = 6>(codes) row = Gather(levels, wide)", ["Cast", "Gather", "Add"]),
        ("row = Cast<to = 1>(halves)", ["Cast", "Add"]),
        ("row = DequantizeLinear(codes, half)", ["DequantizeLinear", "Add"]),
    ],
)
def test_what_is_stored_small_stays_small(decode, kept):
    """Decoding codes or half floats makes more bytes than it replaces, however few those are."""
    weights = {
        "codes": np.arange(200, dtype=np.uint8),
        "levels": np.linspace(-1, 1, 200).astype(F32),
        "halves": np.linspace(-1, 1, 200).astype(np.float16),
        "half": np.array(0.5, F32),
    }
    used = {name: array for name, array in weights.items() if name in decode}
    program = parsed(f"{decode} y = Add(x, row)", "float[batch,200] x", "float[batch,200] y", used)
    assert operators(after("fold-constants", program, "no change")) == kept


def test_integers_that_become_as_small_numbers_are_folded():
    program = parsed(
        "row = Cast<to = 10>(numbers) wide = Cast<to = 1>(one) sum = Add(x, wide) y = CastLike(sum, row)",
        "float[batch,length] x",
        "float16[batch,length] y",
        {"numbers": np.arange(100, dtype=F32), "one": np.ones(1, np.float16)},
    )
    assert operators(after("fold-constants", program)) == ["Add", "CastLike"]


@pytest.mark.parametrize("axis", [0, 1])
def test_elements_gathered_along_a_long_axis_are_folded_to_the_right_ones(axis):
    """onnx's reference takes others beyond 63 (findings/onnx-reference-gather-elements-ends-at-63.sh)."""
    table = np.arange(200, dtype=F32).reshape(100, 2)
    table, indices = (
        (table, np.full((3, 2), -1)) if axis == 0 else (table.T.copy(), np.arange(6).reshape(2, 3) * 9)
    )
    program = parsed(
        f"""
        picked = GatherElements<axis = {axis}>(table, indices)
        one = ReduceMax<keepdims = 0>(picked)
        y = Add(x, one)
        """,
        X3,
        Y3,
        {"table": table, "indices": indices},
    )
    folded = after("fold-constants", program)
    assert [node.op_type for node in folded.graph.graph] == ["Add"]
    (value,) = [each.const_value.numpy() for each in folded.graph.graph.initializers.values()]
    assert value == np.take_along_axis(table, indices % 100, axis).max()

"""fold-constants: what is known beforehand is computed once, unless the file would grow by it."""

import numpy as np
import onnx_ir
import pytest
from canonical import F32, X3, Y3, after, notes
from graphwright.passes.canonical.fold_constants import FoldConstants
from graphwright.passes.manager.contract import Context
from handmade import operators, parsed

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


@pytest.mark.parametrize("weight", [BIG / BIG.size, BIG[:8, :8] / BIG.size], ids=["large", "small"])
def test_transposes_of_one_weight_become_one_weight(weight):
    """Layers that share their weights do so afterwards, too, whatever stands in another order."""
    rows, columns = weight.shape
    program = parsed(
        "one = Transpose<perm = [1, 0]>(weight)\na = MatMul(x, one)\ntwo = Transpose<perm = [1, 0]>(weight)\n"
        "b = MatMul(x, two)\ny = Add(a, b)",
        f"float[batch,{columns}] x", f"float[batch,{rows}] y", {"weight": weight},
    )  # fmt: skip
    folded = after("fold-constants", program)
    assert operators(folded) == ["MatMul", "MatMul", "Add"]
    assert list(folded.graph.graph.initializers) == ["one"]
    np.testing.assert_array_equal(folded.graph.graph.initializers["one"].const_value.numpy(), weight.T)


@pytest.mark.parametrize(
    ("again", "shape"),
    [
        ("Transpose", (6, 4)),
        ("Unsqueeze", (1, 4, 6)),
        ("Flatten<axis = 0>", (1, 24)),
        ("Reshape", (2, 12)),
        ("Identity", (4, 6)),
    ],
)
def test_a_small_table_that_a_head_shares_is_stored_once(again, shape):
    """Rows are looked up and the same table is asked for in another layout: one of them is computed."""
    operand = {"Unsqueeze": ", zero", "Reshape": ", sizes"}.get(again, "")
    program = parsed(
        f"picked = Gather(table, ids)\nagain = {again}(table{operand})\nsum = ReduceSum(again)\n"
        "y = Add(picked, sum)",
        "int64[batch] ids", "float[batch,6] y",
        {"table": np.arange(24, dtype=F32).reshape(4, 6) / 24}
        | ({"zero": np.array([0])} if "zero" in operand else {})
        | ({"sizes": np.array(shape)} if "sizes" in operand else {}),
    )  # fmt: skip
    kept = after("fold-constants", program, status="no change")
    assert "again" not in kept.graph.graph.initializers
    assert "stays: its weight 'table' has other uses" in notes("fold-constants", program)


@pytest.mark.parametrize(
    ("row", "again"),
    [(np.ones(4, F32), "Unsqueeze(row, zero)"), (np.arange(8, dtype=F32).reshape(2, 4), "Cos(row)")],
    ids=["vector", "function"],
)
def test_what_is_no_second_layout_of_a_matrix_is_folded(row, again):
    program = parsed(
        f"once = {again}\ntwice = Sin(row)\na = ReduceSum(once)\nb = ReduceSum(twice)\n"
        "c = Add(a, b)\ny = Add(x, c)",
        X3, Y3, {"row": row} | ({"zero": np.array([0])} if "zero" in again else {}),
    )  # fmt: skip
    assert operators(after("fold-constants", program)) == ["Add"]


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

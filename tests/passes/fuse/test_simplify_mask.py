"""simplify-mask: detours of exporters undone, and nothing that only looks like one."""

import numpy as np
import onnx_ir
import pytest
from fusing import fused
from graphwright.passes.fuse.simplify_mask import SimplifyMask
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed

CONSTANTS = {
    "nought": np.array(0), "one": np.array(1), "first": np.array([0]), "column": np.array([1, 2, 3]),
    "row": np.array([0, 1, 2]), "last": np.array([4]), "always": np.array(True), "never": np.array(False),
    "middle": np.array([0, 1, 3]),
}  # fmt: skip
INPUTS = "int64[batch,length] mask, float[batch,2,length,length] scores"
RANGES = """
    kept = Cast<to = 9>(mask)
    b = Shape<start = 0, end = 1>(mask) batch = Squeeze(b) bs = Range(nought, batch, one)
    n = Shape<start = 1, end = 2>(mask) length = Squeeze(n) ls = Range(nought, length, one)
    rows = Unsqueeze(bs, column) columns = Unsqueeze(ls, row)
"""
INDEX = """
    whole = Max(rows, columns) shape = Shape(whole)
    r = Expand(rows, shape) r1 = Unsqueeze(r, last) c = Expand(columns, shape) c1 = Unsqueeze(c, last)
    places = Concat<axis = 4>(r1, c1) seen = GatherND(kept, places)
"""
HOLDS = "queries = Unsqueeze(ls, middle) fine = GreaterOrEqual(queries, nought)"
USE = "wide = And({condition}, seen) added = Where(wide, open, hidden) y = Add(scores, added)"


def program(body, outputs="float[batch,2,length,length] y"):
    numbers = {"open": np.float32(0), "hidden": np.float32(-1e4)}
    made = parsed(body, INPUTS, outputs, {**CONSTANTS, **numbers})
    for node in made.graph.graph:
        if node.op_type == "GatherND":  # the exporter writes shapes down
            node.outputs[0].shape = onnx_ir.Shape(["batch", 1, 1, "length"])
    return made


def simplified(body, **kwargs):
    return fused(SimplifyMask(), program(body, **kwargs), 0.0)


def test_a_gather_of_everything_is_a_view_and_what_always_holds_goes():
    result = simplified(RANGES + INDEX + HOLDS + USE.format(condition="fine"))
    assert dict(result.statistics) == {"gathers undone": 1, "conditions that always hold": 1}
    assert sorted(operators(result.program)) == ["Add", "Cast", "Unsqueeze", "Where"]


def test_a_gather_that_adds_no_axis_is_what_it_gathers_from():
    body = """
        rows = Unsqueeze(bs, one_axis) columns = Unsqueeze(ls, first)
        whole = Add(rows, columns) shape = Shape(whole)
        r = Expand(rows, shape) r1 = Unsqueeze(r, second) c = Expand(columns, shape) c1 = Unsqueeze(c, second)
        places = Concat<axis = 2>(r1, c1) seen = GatherND(kept, places) y = Cast<to = 1>(seen)
    """
    ranges = RANGES[: RANGES.index("    rows =")]
    numbers = {"one_axis": np.array([1]), "second": np.array([2])}
    before = parsed(ranges + body, INPUTS, "float[batch,length] y", {**CONSTANTS, **numbers})
    for node in before.graph.graph:
        if node.op_type == "GatherND":
            node.outputs[0].shape = onnx_ir.Shape(["batch", "length"])
    result = fused(SimplifyMask(), before, 0.0)
    assert result.statistics["gathers undone"] == 1
    assert operators(result.program) == ["Cast", "Cast"]


def test_golden():
    before = program(RANGES + INDEX + HOLDS + USE.format(condition="fine"))
    after = SimplifyMask().run(before.clone(), Context()).program
    golden("fuse/simplify-mask", before_and_after(before, after))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("fine = GreaterOrEqual(queries, one)", 0),  # not of the first position
        ("fine = Greater(queries, nought)", 0),
        ("fine = Identity(never)", 0),
        ("fine = Identity(always)", 1),
        ("g = GreaterOrEqual(queries, nought) fine = And(always, g)", 1),
    ],
)
def test_only_what_always_holds_goes(condition, kept):
    body = RANGES + "queries = Unsqueeze(ls, middle)" + condition + INDEX + USE.format(condition="fine")
    assert (simplified(body).statistics["conditions that always hold"] > 0) == bool(kept)


@pytest.mark.parametrize(
    "index",
    [
        INDEX.replace("Concat<axis = 4>(r1, c1)", "Concat<axis = 4>(c1, r1)").replace(
            "GatherND(kept, places)", "GatherND(square, places)"
        ),
        INDEX.replace("c1 = Unsqueeze(c, last)", "d = Mul(c, nought) c1 = Unsqueeze(d, last)"),
        INDEX.replace("c1 = Unsqueeze(c, last)", "d = Sub(n, c) e = Sub(d, one) c1 = Unsqueeze(e, last)"),
    ],
    ids=["transposed", "first column only", "in reverse"],
)
def test_other_gathers_stay_and_say_why(index):
    body = RANGES + "turned = Transpose<perm = [1, 0]>(kept) square = Identity(turned)" + index
    body += "added = Where(seen, open, hidden) y = Add(scores, added)"
    result = simplified(body)
    assert result.statistics["gathers undone"] == 0
    assert result.notes == ("seen: it does not take every element in order",)


def test_an_axis_that_an_output_shows_is_kept():
    """The condition is all that gives the mask its rows, and the caller sees them."""
    body = RANGES + INDEX + HOLDS + "wide = And(fine, seen)"
    result = simplified(body, outputs="bool[batch,1,length,length] wide")
    assert result.statistics["conditions that always hold"] == 0
    assert "And" in operators(result.program)


def test_nothing_to_do():
    result = SimplifyMask().run(parsed("y = Relu(x)"), Context())
    assert not result.modified
    assert dict(result.statistics) == {"gathers undone": 0, "conditions that always hold": 0}

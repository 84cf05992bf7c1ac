"""Canonical forms and shapes of single operators."""

import pytest
from graphwright.ir.ops.symbolic import concatenated


@pytest.mark.parametrize(
    ("shapes", "axis", "kept"),
    [
        ([(2, 3), (2, 0), (2, 5)], 1, "ac"),
        ([(2, 0), (2, 5), (2, 0)], 1, "b"),
        ([(2, 0), (2, 0)], 1, "ab"),  # or there would be nothing left to say its shape
        ([(0, 3), (2, 3)], 1, "ab"),
        ([None, (2, 0)], 1, "a"),
        ([("batch", "past"), ("batch", 1)], 1, "ab"),
        ([(0,), (2, 5)], 1, "ab"),  # torch.cat's old way of leaving one out; not this axis
    ],
)
def test_operands_with_nothing_along_the_axis_are_left_out(shapes, axis, kept):
    op, operands, attrs = concatenated("abc"[: len(shapes)], shapes, axis)
    assert "".join(operands) == kept
    assert (op, attrs) == (("identity", {}) if len(kept) == 1 else ("concat", {"axis": axis}))

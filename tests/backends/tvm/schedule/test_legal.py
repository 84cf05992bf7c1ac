"""Operators that TVM writes out wrongly beside NaN, written out right."""

import numpy as np
import pytest
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.run.library import compiler
from graphwright.ir.execute import execute
from handmade import parsed

FEED = {
    "x": np.array([[1, np.nan, np.nan, 2, 3, 1, np.inf]], np.float32),
    "y": np.array([[1, np.nan, 1, 1, np.nan, 2, np.inf]], np.float32),
}


@pytest.mark.parametrize("operator", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("same", [False, True])
def test_what_is_not_so_is_no_other_comparison(operator, same):
    """Not of a comparison, once alone and once on its way into what is fused with it."""
    body = f"e = {operator}(x, {'x' if same else 'y'}) n = Not(e) z = Where(n, half, x) c = Cast<to=1>(n)"
    row = "float[batch,7]"
    program = parsed(body, f"{row} x, {row} y", f"{row} z, {row} c", {"half": np.float32(0.5)})
    found = Tvm().build(program, threads=1, buckets=[{"batch": 1}]).run(FEED)
    for name, wanted in execute(program, [FEED])[0].items():
        np.testing.assert_array_equal(found[name], wanted)


@pytest.mark.parametrize("operator", ["equal", "not_equal"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_equality_in_each_type(operator, dtype):
    tvm = compiler()
    relax = tvm.relax
    given = [np.nan_to_num(FEED[name]) if dtype == "int32" else FEED[name] for name in "xy"]
    given = [array.clip(-9, 9).astype(dtype) for array in given]
    builder, (x, y) = relax.BlockBuilder(), (relax.Var(n, relax.TensorType((1, 7), dtype)) for n in "xy")
    with builder.function("main", [x, y]):
        with builder.dataflow():
            z = builder.emit_output(getattr(relax.op, operator)(x, y))
        builder.emit_func_output(z)
    module = relax.transform.LegalizeOps()(builder.get())
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    found = machine["main"](*map(tvm.runtime.tensor, given)).numpy()
    np.testing.assert_array_equal(found, getattr(np, operator)(*given))

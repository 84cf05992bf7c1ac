"""What this package registers in TVM."""

import numpy as np
import pytest
from graphwright.backends.tvm.run.library import compiler
from graphwright.ir.errors import BackendError

tvm = compiler()
from tvm import relax  # noqa: E402


@pytest.mark.parametrize("axis", [0, 1])
def test_a_gather_stays_inside_its_table_and_says_nothing(axis, capfd):
    table = np.arange(12.0, dtype=np.float32).reshape(4, 3)
    indices = relax.Var("indices", relax.TensorType((5,), "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [indices]):
        with builder.dataflow():
            taken = builder.emit_output(relax.op.take(relax.const(table), indices, axis=axis))
        builder.emit_func_output(taken)
    machine = relax.VirtualMachine(tvm.compile(builder.get(), target="llvm"), tvm.cpu())
    given = np.array([2, 0, 1, 1 << 40, -(1 << 40)])
    found = machine["main"](tvm.runtime.tensor(given)).numpy()
    np.testing.assert_array_equal(found, table.take(given, axis, mode="clip"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("exponent", "calls"), [(2.0, 0), (0.5, 0), (3.0, 1)])
def test_squares_and_roots_are_no_calls_of_pow(exponent, calls):
    x = relax.Var("x", relax.TensorType((5,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            raised = builder.emit_output(relax.op.power(x, relax.const(np.float32(exponent))))
        builder.emit_func_output(raised)
    lowered = relax.transform.LegalizeOps()(builder.get())
    assert lowered.script().count("T.pow(") == calls
    machine = relax.VirtualMachine(tvm.compile(lowered, target="llvm"), tvm.cpu())
    given = np.array([0.25, 1.5, 2.0, 3.0, 1e3], np.float32)
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(given)).numpy(), given**exponent, rtol=1e-6)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, BackendError])
def test_what_a_callback_raises_comes_through_as_it_is(kind):
    @tvm.transform.module_pass(opt_level=0)
    def broken(module, context):
        raise kind("a sentence")

    with pytest.raises(kind, match="a sentence"):
        tvm.transform.Sequential([broken])(tvm.IRModule())

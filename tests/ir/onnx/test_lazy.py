import numpy as np
import onnx_ir as ir
import pytest
from graphwright.ir.onnx.lazy import changed, lazy, rounded


def test_numbers_are_made_at_each_reading_and_are_the_same_from_all():
    reads = []

    def read():
        reads.append(1)
        return np.arange(6, dtype=np.float32).reshape(2, 3)

    tensor = lazy(read, ir.DataType.FLOAT, [2, 3], "w")
    assert (tensor.name, tensor.dtype, tensor.shape.numpy(), reads) == ("w", ir.DataType.FLOAT, (2, 3), [])
    assert tensor.numpy().tobytes() == tensor.tobytes() == np.arange(6, dtype=np.float32).tobytes()
    assert len(reads) == 2


def test_a_changed_tensor_leaves_the_first_as_it_is():
    first = ir.Tensor(np.array([1.0, 2.0], np.float32), name="w")
    twice = changed(first, lambda array: array * 2)
    assert (twice.numpy().tolist(), first.numpy().tolist(), twice.name) == ([2.0, 4.0], [1.0, 2.0], "w")


@pytest.mark.parametrize(
    ("dtype", "step"), [(ir.DataType.FLOAT16, 2.0**-10), (ir.DataType.BFLOAT16, 2.0**-7)]
)
def test_rounding_ties_to_even(dtype, step):
    first = ir.Tensor(np.array([1 + step / 2, 1 + 3 * step / 2, -1 - step / 2], np.float32))
    narrow = rounded(first, dtype)
    assert narrow.dtype == dtype
    assert narrow.numpy().astype(np.float64).tolist() == [1.0, 1 + 2 * step, -1.0]

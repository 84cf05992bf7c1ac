"""Texts read segment by segment out of a bundle: what one call leaves, the next one takes."""

from dataclasses import replace

import numpy as np
import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.running.runner import load
from graphwright.ir.errors import InputError
from graphwright.ir.spec import InputSpec
from handmade import parsed

RUNNING = (
    """axis = Constant <value_int=1> () axes = Constant <value_ints=[1]> () sums = CumSum (x, axis)
    column = Unsqueeze (total, axes) y = Add (sums, column)
    all = ReduceSum <keepdims=0> (x, axes) new_total = Add (total, all)""",
    "int64[batch,length] x, int64[batch] total",
    "int64[batch,length] y, int64[batch] new_total",
)


@pytest.fixture
def bundle(tmp_path):
    total = InputSpec("total", "int64", ("batch",), "memory", given_by="new_total")
    program = replace(
        parsed(*RUNNING),
        inputs=(InputSpec("x", "int64", ("batch", "length")), total),
        outputs=("y", "new_total"),
        symbols={"batch": (1, 8), "length": (1, 8)},
    )
    return load(write(tmp_path / "out", [Variant("default", program)], threads=1))


def test_a_stream_goes_on_and_another_begins_anew(bundle):
    x = np.arange(12).reshape(2, 6)
    stream, other = bundle.stream(), bundle.stream()
    found = [stream.run({"x": x[:, part]}) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert [list(outputs) for outputs in found] == [["y"]] * 3
    np.testing.assert_array_equal(np.concatenate([outputs["y"] for outputs in found], 1), x.cumsum(1))
    np.testing.assert_array_equal(other.run({"x": x})["y"], x.cumsum(1))
    assert stream.memory["total"].tolist() == x.sum(1).tolist()


def test_a_single_call_begins_with_an_empty_memory(bundle):
    x = np.ones((3, 2), np.int64)
    assert bundle.run({"x": x})["y"].tolist() == [[1, 2]] * 3
    given = bundle.run({"x": x, "total": np.array([1, 2, 3])})
    assert given["y"][:, 0].tolist() == [2, 3, 4]


def test_other_rows_are_refused(bundle):
    stream = bundle.stream()
    stream.run({"x": np.ones((2, 3), np.int64)})
    with pytest.raises(InputError, match="its batch is 2, but that of x is 3"):
        stream.run({"x": np.ones((3, 3), np.int64)})


def test_a_model_that_remembers_nothing_has_no_stream(make, tmp_path):
    bundle = load(write(tmp_path / "out", [Variant("default", make.encoder(make.weights()))], threads=1))
    with pytest.raises(InputError, match="it with segment-memory"):
        bundle.stream()

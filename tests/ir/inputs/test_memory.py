"""What a program remembers: empty where nothing is given, whoever runs it."""

import numpy as np
from graphwright.ir.inputs.memory import following, remembering
from graphwright.ir.inputs.probe import probes
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec

IDS = InputSpec("ids", "int64", ("batch", "length"), "token_ids", 50)
SUMS = InputSpec("sums", "float32", ("batch", 3), "memory", given_by="new_sums")
COUNT = InputSpec("count", "int64", ("batch",), "memory", seen=(0, 9), given_by="new_count")


def test_a_memory_that_is_left_out_is_empty_and_one_that_is_given_stays():
    inputs, ids, sums = (IDS, SUMS, COUNT), np.ones((2, 5), np.int64), np.ones((2, 3), np.float32)
    feed = remembering(inputs, {"ids": ids})
    assert (feed["sums"] == 0).all()
    assert (feed["sums"].shape, feed["sums"].dtype) == ((2, 3), np.float32)
    assert (feed["count"].tolist(), feed["count"].dtype) == ([0, 0], np.int64)
    given = remembering(inputs, {"ids": ids, "sums": sums})
    assert given["sums"] is sums
    assert given["count"].tolist() == [0, 0]
    whole = {"ids": ids, "sums": sums, "count": np.zeros(2, np.int64)}
    assert remembering(inputs, whole) is whole
    assert remembering((IDS,), {}) == {}
    assert remembering(inputs, [1]) == [1]  # no feed: whoever runs it says so


def test_what_the_next_call_takes_is_what_its_outputs_are_named():
    outputs = {"logits": np.ones(1), "new_count": np.full(2, 7), "new_sums": np.zeros((2, 3))}
    found = following((IDS, SUMS, COUNT), outputs)
    assert list(found) == ["sums", "count"]
    assert found["count"] is outputs["new_count"]


def test_probes_are_of_memories_that_are_filled():
    symbols = {"batch": (1, 8), "length": (1, 64)}
    feeds = probes(Program(None, "onnx", (IDS, SUMS, COUNT), ("y",), symbols=symbols), 0)
    assert any(feed["count"].any() and feed["sums"].any() for feed in feeds)
    assert all(feed["sums"].shape == (len(feed["ids"]), 3) for feed in feeds)

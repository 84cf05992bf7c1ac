"""Which sizes of a decoder's step go together, told from its inputs."""

from dataclasses import replace

import pytest
from graphwright.backends.measuring.workloads import default_names, workloads
from graphwright.ir.errors import MeasureError
from graphwright.ir.inputs.cached import Cache, cache_of, settled
from graphwright.ir.inputs.probe import probes
from graphwright.ir.program import Program
from graphwright.ir.spec import InputSpec

IDS = InputSpec("input_ids", "int64", ("batch", 1), "token_ids", 50)
MASK = InputSpec("attention_mask", "int64", ("batch", "length"), "attention_mask")
KEYS = InputSpec("past.0.key", "float32", ("batch", 2, "past", 4))
VALUES = replace(KEYS, name="past.0.value")
SYMBOLS = {"batch": (1, 64), "length": (1, 2**31 - 1), "past": (1, 2**31 - 1)}
STEP = (IDS, MASK, KEYS, VALUES)


def program(*inputs, **symbols):
    return Program(None, "onnx", inputs, ("logits",), symbols={**SYMBOLS, **symbols})


def test_a_step_and_what_is_none():
    several = replace(IDS, shape=("batch", "tokens"))
    assert cache_of(program(*STEP)) == Cache("past", "length", 1)
    assert cache_of(program(several, MASK, KEYS)) == Cache("past", "length", "tokens")
    for inputs in (
        (IDS, MASK),
        (IDS, KEYS),
        (replace(IDS, shape=("batch", "length")), MASK, KEYS),  # a mask of the new tokens alone
        (IDS, MASK, KEYS, replace(VALUES, shape=("batch", 2, "other", 4))),
        (IDS, replace(MASK, shape=("batch", 9)), KEYS),
        (IDS, MASK, replace(KEYS, shape=("batch", 2, 8, 4))),
    ):
        assert cache_of(program(*inputs)) is None
        assert settled(program(*inputs), {"past": 3, "length": 7}) == {"past": 3, "length": 7}


def test_probes_and_workloads_have_a_mask_over_cache_and_token():
    feeds = probes(program(*STEP), 0)
    feeds += [each.feed for each in workloads(program(*STEP), ["1x1", "3x16"])]
    assert len({feed["past.0.key"].shape[2] for feed in feeds}) > 3
    for feed in feeds:
        assert feed["input_ids"].shape[1] == 1
        assert feed["attention_mask"].shape[1] == feed["past.0.key"].shape[2] + 1
        assert feed["past.0.key"].shape == feed["past.0.value"].shape
    assert workloads(program(*STEP), ["3x16"])[0].feed["past.0.key"].shape == (3, 2, 16, 4)


def test_what_a_step_is_timed_on():
    assert default_names(program(*STEP)) == ("1x128", "8x128", "1x16")
    bounded = program(*STEP, length=(1, 20))
    assert default_names(bounded) == ("1x19", "8x19", "1x16")
    assert max(feed["attention_mask"].shape[1] for feed in probes(bounded, 0)) == 20
    with pytest.raises(MeasureError, match="needs length = 21 and the model takes at most 20"):
        workloads(bounded, ["1x20"])
    with pytest.raises(MeasureError, match=r"one token over a cache; write batch x cached tokens"):
        workloads(program(*STEP), ["mixed:4"])

"""A program may gain a memory, and nothing else: what it gives while that is empty is held to what it was."""

from dataclasses import dataclass, replace

import pytest
from graphwright.ir.spec import InputSpec
from graphwright.passes.manager.contract import Exact, Pass, Result
from graphwright.passes.manager.pipeline import Pipeline
from handmade import parsed

PLAIN = ("y = Tanh (x)", "float[batch,4] x", "float[batch,4] y")
SUMMING = """start = Constant <value_float=START> () old = Add (sum, start) new_sum = Add (old, x)
    t = Tanh (x) y = Add (t, old)"""
GAINED = ("float[batch,4] x, float[batch,4] sum", "float[batch,4] y, float[batch,4] new_sum")
X = InputSpec("x", "float32", ("batch", 4))
SUM = InputSpec("sum", "float32", ("batch", 4), "memory", given_by="new_sum")


def gaining(start="0.0", spec=SUM, outputs=("y", "new_sum")):
    def run(self, program, context):
        graph = parsed(SUMMING.replace("START", start), *GAINED).graph
        return Result(replace(program, graph=graph, inputs=(X, spec), outputs=outputs), True)

    settings = {"name": "gaining", "source": "onnx", "target": None, "effect": Exact(1e-5), "run": run}
    made = dataclass(frozen=True)(type("Gaining", (Pass,), settings))()
    program = replace(parsed(*PLAIN), inputs=(X,), outputs=("y",), symbols={"batch": (1, 64)})
    return Pipeline([made]).run(program).steps[0]


def test_a_memory_is_empty_where_outputs_are_compared():
    step = gaining()
    assert (step.status, step.unverified) == ("applied", "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start": "0.5"}, "output 'y' on probe 1"),
        ({"spec": replace(SUM, given_by="")}, "the outputs became 'y', 'new_sum' instead of 'y'"),
        ({"outputs": ("new_sum", "y")}, "the outputs became 'new_sum', 'y'"),
        ({"spec": replace(SUM, given_by="y")}, "the outputs became 'y', 'new_sum' instead of 'y', 'y'"),
    ],
)
def test_what_is_gained_beside_it_or_changes_what_was_is_undone(change, reason):
    step = gaining(**change)
    assert step.status == "rolled back"
    assert reason in str(step.error)

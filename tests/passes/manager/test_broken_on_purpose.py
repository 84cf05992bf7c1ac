"""Every pass's contract notices a model that was broken on purpose, on one output or on one row of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from graphwright.ir.errors import ContractError
from graphwright.passes.manager.contract import Bounded, Exact, Lossy, Pass, Result
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.registry import names, resolve
from graphwright.passes.manager.verify import compare
from handmade import parsed

X = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)


def one(value):
    def change(array):
        array = array.copy()
        array[2, 3] = value
        return array

    return change


def two_bits(array):
    step = np.abs(array).max() / 1.5
    return (np.clip(np.round(array / step - 0.5) + 0.5, -1.5, 1.5) * step).astype(array.dtype)


BREAKS = {
    "zeros": np.zeros_like,
    "constant": lambda array: np.full_like(array, array.mean()),
    "the same row for all": lambda array: np.broadcast_to(array[:1], array.shape),
    "shuffled rows": lambda array: array[::-1],
    "shuffled columns": lambda array: array[:, ::-1],
    "doubled": lambda array: 2 * array,
    "halved": lambda array: array / 2,
    "negated": lambda array: -array,
    "one NaN": one(np.nan),
    "one infinity": one(np.inf),
    "all NaN": lambda array: np.full_like(array, np.nan),
    "another type": lambda array: array.astype(np.float64),
    "a row short": lambda array: array[:-1],
    "two bits": two_bits,
    "one value off": one(X[2, 3] + 0.01),
}
EFFECTS = {name: resolve(name).effect for name in names()}
PROMISES = {effect for effect in EFFECTS.values() if not isinstance(effect, Lossy)}


def noticed(name, effect):
    """A cosine says nothing of one value that is a little off: no promise of it does."""
    return not (isinstance(effect, Bounded) and name == "one value off")


CASES = [(name, effect) for name in BREAKS for effect in sorted(PROMISES, key=str) if noticed(name, effect)]


@pytest.mark.parametrize(("name", "effect"), CASES, ids=str)
def test_what_any_pass_promises_is_noticed_to_be_broken(name, effect):
    with pytest.raises(ContractError, match=r"^y "):
        compare(X, BREAKS[name](X), effect, None, "y")
    compare(X, X.copy(), effect, None, "y")


@pytest.mark.parametrize("name", sorted(BREAKS.keys() - {"two bits", "one value off"}))
def test_a_cosine_notices_all_but_small_errors(name):
    with pytest.raises(ContractError):
        compare(X, BREAKS[name](X), Bounded("cosine", 0.99), None, "y")


def test_nan_that_went_away_is_a_difference():
    with pytest.raises(ContractError, match="numbers in 1 places where there was NaN"):
        compare(one(np.nan)(X), X, Exact(), None, "y")


def suspect(body, effect):
    """A pass that puts another graph in the program's place."""

    def run(self, program, context):
        return Result(replace(program, graph=program_of(body).graph), True)

    settings = {"name": "suspect", "source": "onnx", "target": None, "effect": effect, "run": run}
    return dataclass(frozen=True)(type("Suspect", (Pass,), settings))()


def program_of(body):
    weights = {"two": np.float32(2), "zero": np.float32(0), "one": np.float32(1)}
    return parsed(body, weights={name: array for name, array in weights.items() if name in body})


GOOD = "y = Tanh(x)"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("z = Sub(x, x) y = Tanh(z)", "became constant on every probe"),
        ("z = Sub(x, x) q = Div(z, z) y = Tanh(q)", "NaN where there was none"),
    ],
)
def test_a_pass_without_a_promise_may_not_end_what_an_output_says(body, words):
    run = Pipeline([suspect(body, Lossy())]).run(program_of(GOOD))
    assert run.steps[0].status == "rolled back"
    assert words in str(run.steps[0].error)


@pytest.mark.parametrize(
    "body", ["z = Tanh(x) y = Mul(z, two)", "z = Neg(x) y = Tanh(z)", "z = Sub(x, x) y = Tanh(z)"]
)
def test_an_exact_pass_that_computes_something_else_is_rolled_back(body):
    run = Pipeline([suspect(body, Exact())]).run(program_of(GOOD))
    assert run.steps[0].status == "rolled back"


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("z = Sub(x, x) y = Exp(z)", "z = Sub(x, x) y = Cos(z)", "constant"),
        ("z = Sub(x, x) y = Div(z, z)", "z = Sub(x, x) q = Add(z, z) y = Div(q, z)", "NaN"),
    ],
)
def test_a_promise_about_outputs_that_say_nothing_is_called_unverified(before, after, kind):
    run = Pipeline([suspect(after, Exact())]).run(program_of(before))
    assert run.steps[0].unverified == f"'y' is {kind} on every probe input, so nothing was verified"
    assert (
        Pipeline([suspect(GOOD + " ", Exact())])
        .run(program_of("z = Tanh(x) y = Mul(z, one)"))
        .steps[0]
        .unverified
        == ""
    )

"""The driver, lied to: each bad pass is caught and named, and the program it was given is untouched."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.errors import DataError, PassError, PipelineError, ProgramError
from graphwright.ir.onnx.graph import Editor
from graphwright.passes.manager.contract import Bounded, Context, Exact, Lossy, Pass, Ratio, Result
from graphwright.passes.manager.instruments import Instrument
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.reproducer import Reproducer
from handmade import operators, parsed

WEIGHTS = {"table": np.arange(32, dtype=np.float32).reshape(8, 4), "bias": np.ones(4, np.float32)}
BODY = """
    words = Gather(table, ids)
    wide = Cast<to = 1>(mask)
    axes = Constant<value_ints = [2]>()
    column = Unsqueeze(wide, axes)
    kept = Mul(words, column)
    hidden = Add(kept, bias)
"""


EXACT = Exact()


def masked(outputs="float[batch,length,4] hidden"):
    """(embedding of ids) * mask + bias."""
    return parsed(BODY, "int64[batch,length] ids, int64[batch,length] mask", outputs, WEIGHTS)


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.relu(self.proj(x))


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return capture(Linear().eval(), inputs=(torch.randn(2, 4),))


def a_pass(run, *, effect=EXACT, source="onnx", target=None, gated=False, requires=()):
    """A pass named "suspect" whose `run(program, context)` is given."""
    settings = {"name": "suspect", "source": source, "target": target, "effect": effect}
    body = {
        **settings,
        "gated": lambda self: gated,
        "requires": lambda self: requires,
        "run": lambda self, program, ctx: run(program, ctx),
    }
    return dataclass(frozen=True)(type("Suspect", (Pass,), body))()


def add_zero(program, value="hidden", weight=0.0):
    """A real rewrite: `value` becomes value + weight, under its old name."""
    editor = Editor(program.graph)
    old = next(v for node in program.graph.graph for v in node.outputs if v.name == value)
    constant = editor.initializer(np.array(weight, np.float32), "shift")
    node = editor.node("Add", [old, constant], "shifted", after=old.producer(), like=old)
    editor.replace(old, node.outputs[0])
    node.replace_input_with(0, old)
    return program


def caught(program, pass_, *words, context=None):
    """Run the pass: it must be rolled back in one sentence with these words, and change nothing."""
    before = program.fingerprint()
    run = Pipeline([pass_]).run(program, context or Context())
    assert not run.ok
    assert run.program is program
    assert run.steps[0].status == "rolled back"
    message = str(run.steps[0].error)
    for word in ("suspect", *words):
        assert word in message
    assert "\n" not in message
    assert program.fingerprint() == before
    return message


def test_an_honest_pass_is_applied():
    program = masked()
    before = program.fingerprint()
    run = Pipeline([a_pass(lambda p, c: Result(add_zero(p), True, {"added": 1}, ("note",)))]).run(program)
    step = run.steps[0]
    assert run.ok
    assert (step.status, step.text, step.statistics, step.notes) == (
        "applied",
        "suspect",
        {"added": 1},
        ("note",),
    )
    assert operators(run.program)[-2:] == ["Add", "Add"]
    assert program.fingerprint() == before
    assert step.bytes_after == step.bytes_before + 4 == 32 * 4 + 16 + 4


def test_nothing_to_do_keeps_the_very_program():
    program = masked()
    run = Pipeline([a_pass(lambda p, c: Result(p, False))]).run(program)
    assert run.ok
    assert run.program_or_raise() is program
    assert run.steps[0].status == "no change"


def test_changed_but_says_it_did_not():
    caught(masked(), a_pass(lambda p, c: Result(add_zero(p), False)), "modified=False")


def test_unchanged_but_says_it_did():
    caught(masked(), a_pass(lambda p, c: Result(p, True)), "modified=True")


def test_use_before_producer():
    def run(program, context):
        graph = program.graph.graph
        first = graph[0]
        graph.remove(first)
        graph.append(first)
        return Result(program, True)

    caught(masked(), a_pass(run), "'words'", "before it is computed")


def test_use_without_producer():
    def run(program, context):
        program.graph.graph.remove(program.graph.graph[0])
        return Result(program, True)

    caught(masked(), a_pass(run), "'words'", "no producer")


def test_cycle():
    def run(program, context):
        nodes = list(program.graph.graph)
        nodes[0].replace_input_with(1, nodes[1].outputs[0])
        nodes[1].replace_input_with(0, nodes[0].outputs[0])
        return Result(program, True)

    caught(masked(), a_pass(run), "before it is computed")


def test_unknown_operator():
    def run(program, context):
        program.graph.graph[-1].op_type = "Summate"
        return Result(program, True)

    caught(masked(), a_pass(run), "onnx.checker", "Summate")


def test_valid_graph_that_does_not_run():
    def run(program, context):
        graph = program.graph.graph
        graph[-1].replace_input_with(1, Editor(program.graph).initializer(np.ones(3, np.float32), "short"))
        return Result(program, True)

    caught(masked(), a_pass(run), "does not run")


def test_numbers_off_in_every_mask():
    message = caught(
        masked(), a_pass(lambda p, c: Result(add_zero(p, weight=0.01), True)), "'hidden'", "probe 1"
    )
    assert "limit 0.0001" in message


def drop_mask(program, context):
    """Use the embeddings as they are: right only where nothing is masked."""
    nodes = {node.op_type: node for node in program.graph.graph}
    nodes["Add"].replace_input_with(0, nodes["Gather"].outputs[0])
    return Result(program, True)


def test_wrong_under_padding_only():
    message = caught(masked(), a_pass(drop_mask), "'hidden'", "masked")
    assert "probe 1 " not in message  # the first probe masks nothing


def test_masked_positions_may_be_left_out():
    assert Pipeline([a_pass(drop_mask, effect=Exact(where="mask"))]).run(masked()).ok


def test_new_nan_breaks_even_a_lossy_contract():
    def run(program, context):
        return Result(add_zero(program, weight=float("nan")), True)

    caught(masked(), a_pass(run, effect=Lossy()), "NaN")


def test_bounded_cosine():
    def run(scale):
        return lambda program, context: Result(add_zero(program, weight=scale), True)

    assert Pipeline([a_pass(run(0.01), effect=Bounded("cosine", 0.999))]).run(masked()).ok
    caught(masked(), a_pass(run(-30.0), effect=Bounded("cosine", 0.999)), "cosine", "limit 0.999")


def test_raises():
    def run(program, context):
        add_zero(program)
        raise KeyError("no such thing\nsecond line")

    caught(masked(), a_pass(run), "KeyError", "no such thing")


def test_interrupt_passes_through():
    def run(program, context):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline([a_pass(run)]).run(masked())


def test_wrong_dialect(linear):
    caught(masked(), a_pass(lambda p, c: Result(linear.clone(), True)), "fx", "onnx")


def test_not_a_result():
    caught(masked(), a_pass(lambda p, c: p), "Program instead of a Result")


def test_renamed_output():
    def run(program, context):
        program.graph.graph.outputs[0].name = "renamed"
        return Result(program, True)

    caught(masked(), a_pass(run), "renamed", "hidden")


def test_renamed_output_in_the_program_too():
    def run(program, context):
        program.graph.graph.outputs[0].name = "renamed"
        return Result(replace(program, outputs=("renamed",)), True)

    caught(masked(), a_pass(run), "'renamed' instead of 'hidden'")


def test_changed_input():
    def run(program, context):
        program.graph.graph.inputs[0].dtype = onnx_ir.DataType.INT32
        ids, mask = program.inputs
        return Result(replace(program, inputs=(replace(ids, dtype="int32"), mask)), True)

    caught(masked(), a_pass(run), "'ids'", "int32")


def test_an_input_symbol_may_become_a_number():
    def run(program, context):
        inputs = []
        for value, spec in zip(program.graph.graph.inputs, program.inputs, strict=True):
            inputs.append(replace(spec, shape=(2, spec.shape[1])))
            value.shape = onnx_ir.Shape(inputs[-1].shape)
        return Result(replace(program, inputs=tuple(inputs), symbols={"length": (1, 64)}), True)

    run = Pipeline([a_pass(run)]).run(masked())
    assert run.ok
    assert run.program.inputs[0].shape == (2, "length")


def test_weight_written_in_place():
    def run(program, context):
        program.graph.graph.initializers["bias"].const_value.numpy()[...] += 1
        return Result(program, True)

    program = masked()
    for value in program.graph.graph.initializers.values():  # arrays a caller could write to
        value.const_value = onnx_ir.Tensor(value.const_value.numpy().copy(), name=value.name)
    caught(program, a_pass(run), "read-only")
    np.testing.assert_array_equal(program.graph.graph.initializers["bias"].const_value.numpy(), np.ones(4))


def multiply(parameter):
    with torch.no_grad():
        parameter.mul_(2)


@pytest.mark.parametrize(
    "write",
    [
        multiply,
        lambda parameter: parameter.data.add_(1),
        lambda parameter: parameter.data.__setitem__(0, 3),
        lambda parameter: torch.add(parameter.data, 1, out=parameter.data),
    ],
)
def test_parameter_written_in_place(linear, write):
    def run(program, context):
        write(program.graph.get_parameter("proj.weight"))
        return Result(program, True)

    kept = linear.graph.get_parameter("proj.weight").detach().clone()
    caught(linear, a_pass(run, source="fx"), "shared with the program before it")
    torch.testing.assert_close(linear.graph.get_parameter("proj.weight").detach(), kept, rtol=0, atol=0)


def test_parameter_given_other_data(linear):
    def run(program, context):
        program.graph.get_parameter("proj.weight").data = torch.zeros(4, 4)
        return Result(program, True)

    caught(linear, a_pass(run, source="fx"), "new Parameter")
    assert linear.graph.get_parameter("proj.weight").abs().sum() > 0


def test_new_parameter_is_an_ordinary_rewrite(linear):
    def run(program, context):
        program.graph.proj.weight = torch.nn.Parameter(program.graph.proj.weight.detach() * 1.00001)
        return Result(program, True)

    before = linear.fingerprint()
    assert Pipeline([a_pass(run, source="fx")]).run(linear).ok
    assert linear.fingerprint() == before


def test_broken_fx_graph(linear):
    def run(program, context):
        graph = program.graph.graph
        relu = next(node for node in graph.nodes if "relu" in node.name)
        graph.output_node().prepend(relu.args[0])
        return Result(program, True)

    caught(linear, a_pass(run, source="fx"), "torch.fx refuses")


def test_wrong_fx_numbers(linear):
    def run(program, context):
        relu = next(node for node in program.graph.graph.nodes if "relu" in node.name)
        relu.target = torch.ops.aten.sigmoid.default
        return Result(program, True)

    caught(linear, a_pass(run, source="fx"), "moved by")


def test_stops_at_a_failure_or_keeps_going():
    bad = a_pass(lambda p, c: Result(add_zero(p, weight=1.0), True))
    good = a_pass(lambda p, c: Result(add_zero(p), True))
    stopped = Pipeline([bad, good]).run(masked())
    assert [step.status for step in stopped.steps] == ["rolled back"]
    went_on = Pipeline([bad, good]).run(masked(), keep_going=True)
    assert [step.status for step in went_on.steps] == ["rolled back", "applied"]
    assert not went_on.ok
    with pytest.raises(type(went_on.steps[0].error)) as raised:  # whatever went well behind it
        went_on.program_or_raise()
    assert raised.value is went_on.steps[0].error


@pytest.mark.parametrize("error", [DataError("the data are constant"), PassError("no head is found")])
def test_a_pass_that_refuses_what_it_is_given_is_not_rolled_back(error, tmp_path):
    def run(program, context):
        add_zero(program, weight=1.0)
        raise error

    program = masked()
    good = a_pass(lambda p, c: Result(add_zero(p), True))
    passes = Pipeline([a_pass(run), good])
    stopped = passes.run(program, instruments=[Reproducer(tmp_path / "case")])
    assert [step.status for step in stopped.steps] == ["refused"]
    assert stopped.steps[0].error is error
    assert stopped.steps[0].failure == f"'suspect' was left out: {error}"
    assert not stopped.ok
    assert stopped.program is program
    assert not (tmp_path / "case").exists()  # nothing of graphwright's to be reproduced
    went_on = passes.run(program, keep_going=True)
    assert [step.status for step in went_on.steps] == ["refused", "applied"]


def test_a_program_that_does_not_run_is_no_passes_fault():
    def rewrite(program, context):
        return Result(add_zero(program, value="wide"), True)

    judged = []

    class Told(Instrument):
        def after(self, pass_, step, before, after, context):
            judged.append(step)

    body = """
        wide = Cast<to = 1>(mask)
        shape = Constant<value_ints = [3, 7, 1]>()
        hidden = Reshape(wide, shape)
    """
    program = parsed(body, "int64[batch,length] mask", "float[a,b,1] hidden", {})
    passes = Pipeline([a_pass(rewrite), a_pass(rewrite)])
    with pytest.raises(ProgramError, match=r"the model does not run on inputs .*mask .*Reshape") as refused:
        passes.run(program, instruments=[Told()], keep_going=True)
    assert "suspect" not in str(refused.value)
    assert judged == []  # said once, of no pass


def test_a_pass_that_takes_other_inputs_than_the_program_is_to_blame():
    def run(program, context):
        specs = [replace(spec, shape=("batch", 9)) for spec in program.inputs]
        return Result(replace(add_zero(program), inputs=tuple(specs)), True)

    body = "wide = Cast<to = 1>(mask) hidden = Add(wide, four)"
    four = {"four": np.ones(4, np.float32)}
    program = parsed(body, "int64[batch,length] mask", "float[batch,length] hidden", four)
    program = replace(program, symbols={**program.symbols, "length": (4, 4)})
    caught(program, a_pass(run), "broke its contract", "the program before it does not take what it takes")


def test_passes_for_a_dialect_that_was_not_reached_are_not_run(linear):
    def fails(program, context):
        raise KeyError("no such operator")

    lower = a_pass(fails, source="fx", target="onnx")
    run = Pipeline([lower, a_pass(lambda p, c: Result(add_zero(p), True))]).run(linear, keep_going=True)
    assert [step.status for step in run.steps] == ["rolled back", "not run"]
    assert run.steps[1].error is None
    assert "works on onnx programs" in run.steps[1].notes[0]
    assert not run.ok
    assert run.program is linear


def test_each_pass_is_held_to_the_program_before_it():
    drift = a_pass(lambda p, c: Result(add_zero(p, weight=0.8), True), effect=Exact(1.0))
    run = Pipeline([drift, drift]).run(masked())
    assert [step.status for step in run.steps] == ["applied", "applied"]


def test_verification_off_trusts_the_pass():
    run = Pipeline([a_pass(lambda p, c: Result(add_zero(p, weight=1.0), True))]).run(masked(), verify=False)
    assert run.ok
    assert run.steps[0].check_seconds == 0


def ratios(**medians):
    return Context(measure=lambda before, after: {k: Ratio(*v) for k, v in medians.items()})


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        ({"a": (1.1, 1.05, 1.2), "b": (0.5, 0.4, 0.6)}, "applied"),  # some gain: variants decide
        ({"a": (1.0, 0.99, 1.01), "b": (0.5, 0.4, 0.6)}, "slower"),
        ({"a": (1.0, 0.97, 1.03)}, "applied"),  # noise
        ({"a": (1.05, 1.0, 1.1), "b": (0.95, 0.9, 1.0)}, "applied"),  # quartiles reach 1
    ],
)
def test_gated_pass(measured, status):
    program = masked()
    gated = a_pass(lambda p, c: Result(add_zero(p), True), gated=True)
    run = Pipeline([gated]).run(program, ratios(**measured))
    assert run.ok
    assert run.steps[0].status == status
    assert set(run.steps[0].ratios) == set(measured)
    assert (run.program is program) == (status == "slower")


def test_ungated_pass_is_not_timed():
    run = Pipeline([a_pass(lambda p, c: Result(add_zero(p), True))]).run(masked(), ratios(a=(0.1, 0.1, 0.1)))
    assert run.steps[0].status == "applied"
    assert not run.steps[0].ratios


def never(program, context):
    raise AssertionError("work started")


def test_dialects_are_checked_before_work(linear):
    with pytest.raises(PipelineError, match="insert to-onnx before 'suspect'"):
        Pipeline([a_pass(never)]).run(linear)
    with pytest.raises(PipelineError, match="start from a PyTorch"):
        Pipeline([a_pass(never, source="fx")]).run(masked())


def test_dialect_after_a_lowering_pass(linear):
    lowering = a_pass(never, source="fx", target="onnx")
    with pytest.raises(PipelineError, match="put it before to-onnx"):
        Pipeline([lowering, a_pass(never, source="fx")]).run(linear)
    Pipeline([lowering, a_pass(never)]).check(linear, Context())


def test_needs_are_checked_before_work():
    needy = a_pass(never, requires=("calibration",))
    with pytest.raises(PipelineError, match=r"'suspect' needs calibration data.*--data"):
        Pipeline([needy]).run(masked())
    Pipeline([needy]).check(masked(), Context(calibration=[{"ids": np.zeros((1, 1))}]))


@dataclass(frozen=True)
class Typed(Pass):
    name: ClassVar[str] = "typed"
    source: ClassVar = None
    target: ClassVar = None
    effect: ClassVar = Exact()
    ratio: float = 0.5

    def run(self, program, context):
        return Result(program, False)


def test_options_are_checked_in_python_too():
    with pytest.raises(PipelineError, match="'ratio' of 'typed' must be a number, not half"):
        Pipeline([Typed("half")])
    assert str(Pipeline([Typed(1)])) == "typed{ratio=1.0}"

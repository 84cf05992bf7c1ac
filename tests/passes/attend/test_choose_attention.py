"""choose-attention: the least loss for the time, layer by layer, by a clock that the test makes."""

import numpy as np
import pytest
from graphwright.ir.errors import PipelineError
from graphwright.ir.execute import execute
from graphwright.passes.lower.timed.timing import Timing
from graphwright.passes.manager.contract import Ratio
from graphwright.passes.manager.pipeline import Pipeline
from one_layer import one_layer
from pruning import run
from recovery import feeds_of
from tokens import batch, pooled

KINDS = 'kinds=(linear,"kind=window,window=1")'


def clock(full=10.0, blocks=4.0, linear=2.0, layers=2):
    """A measure under which an attention costs so much, and all else 4."""

    def taken(program):
        if program.dialect == "onnx":  # attention over all keys is one operator, as it will run
            names = [node.op_type for node in program.graph.graph]
            whole, cut = names.count("Attention"), names.count("Softmax")
        else:
            names = [node.name for node in program.graph.graph.nodes]
            whole = sum(name.startswith("scaled_dot_product_attention") for name in names)
            cut = sum(name.startswith("softmax") for name in names)
        return 4 + cut * blocks + whole * full + (layers - cut - whole) * linear

    def measure(before, after, **asked):
        ratio = taken(before) / taken(after)
        return {"1x11": Ratio(ratio, ratio, ratio)}

    return measure


@pytest.fixture
def unlowered(monkeypatch):
    """Lowering is most of what timing takes, and this clock tells fx programs apart as well."""

    def ready(self, program):
        work = program.clone()
        self._ready(work)
        return work

    monkeypatch.setattr(Timing, "_lowered", ready)


def chosen(options, **costs):
    program = pooled("bert")
    done = run(
        f"choose-attention{{{KINDS},{options}}}",
        program,
        calibration=feeds_of(program),
        measure=clock(**costs),
    )
    return program, done


@pytest.mark.usefixtures("unlowered")
def test_the_layer_that_minds_least_is_substituted_first():
    program, done = chosen("latency=0.7")
    told = done.steps[0].statistics
    assert told["attentions substituted"] == "1 of 2"
    (number, _, kind) = told["chosen"].partition(" ")
    # by hand: what each choice that is fast enough (24 to at most 16.8) moves outputs by, alone
    feeds = feeds_of(program)[:8]
    lost = {}
    for layer in (0, 1):
        for name, options in (("linear", "kind=linear"), ("window", "kind=window,window=1")):
            other = run(
                f"substitute-attention{{{options},layers=({layer},)}}", program, calibration=feeds_of(program)
            )
            (one,) = program.outputs
            pairs = zip(execute(program, feeds), execute(other.program, feeds), strict=True)
            lost[layer, name] = sum(float(np.square(a[one] - b[one]).sum()) for a, b in pairs)
    fits = {key: loss for key, loss in lost.items() if key[1] == "linear" or 24 / 18 >= 1 / 0.7}
    layer, name = min(fits, key=fits.get)
    assert (number, name in kind) == (str(layer), True)


@pytest.mark.usefixtures("unlowered")
def test_a_kind_that_saves_no_time_leaves_full_attention_and_says_so():
    program, done = chosen("latency=0.5", blocks=11.0, linear=12.0)
    step = done.steps[0]
    assert step.status == "no change"
    assert "no kind is faster" in step.missed
    assert "linear saves no time at this length: full attention is as fast" in step.notes
    feed = batch(program, (5, 3))
    np.testing.assert_array_equal(
        *(next(iter(execute(p, [feed])[0].values())) for p in (program, done.program))
    )


@pytest.mark.usefixtures("unlowered")
def test_a_goal_that_nothing_reaches_keeps_the_fastest_and_is_missed():
    _, done = chosen("latency=0.1")
    step = done.steps[0]
    assert step.statistics["chosen"] == "0 linear, 1 linear"
    assert step.statistics["speed-up measured"] == pytest.approx(24 / 8)
    assert "was to take 0.1 of its time, and the best that was found takes 0.33" in step.missed


def test_what_is_timed_is_lowered_and_full_attention_one_kernel():
    program = one_layer()
    text = "choose-attention{kinds=(linear,),latency=0.8}"
    measure = clock(full=10, linear=5, layers=1)
    step = run(text, program, calibration=feeds_of(program), measure=measure).steps[0]
    assert step.statistics["chosen"] == "0 linear"
    assert step.statistics["speed-up measured"] == pytest.approx(14 / 9, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("kinds=(linnear,)", "kinds names 'linnear'"),
        ('kinds=("kind=window,layers=(1,)",)', "layers are what is chosen"),
        ("kinds=(linear,linear)", "each once"),
        ("latency=1.5", "above 0 and below 1"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, reason):
    with pytest.raises(PipelineError) as told:
        Pipeline.parse(f"choose-attention{{{options}}}")
    assert reason in str(told.value)


def test_where_no_kind_fits_the_reason_is_told():
    program = pooled("t5")
    done = run("choose-attention{kinds=(linear,)}", program, calibration=feeds_of(program), measure=clock())
    assert "a position bias is added to its scores" in str(done.steps[0].error)

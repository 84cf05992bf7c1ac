"""The latency table and prune-to-latency, on a clock that counts weights: every figure can be worked out."""

import numpy as np
import pytest
import zoo
from graphwright.ir.errors import PipelineError
from graphwright.ir.footprint import weights
from graphwright.passes.common.batches import some
from graphwright.passes.common.to_budget import cheapest
from graphwright.passes.manager.contract import Context, Ratio
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.prune.surgery.units import units
from graphwright.passes.prune.timing.latency import grid, kinds, table

CONDITIONS = {"target": "here", "threads": 1}


class Clock:
    """A program takes 20,000 ticks, and one for each byte of its weights."""

    def __init__(self):
        self.calls, self.processes = 0, []

    def __call__(self, before, after, only=None, processes=1):
        assert before.dialect == after.dialect == "onnx"
        self.calls += 1
        self.processes.append(processes)
        ratio = ticks(before) / ticks(after)
        return {name: Ratio(ratio, ratio, ratio) for name in ("1x8", "8x8") if only in (None, name)}


def ticks(program):
    return 20_000 + sum(weights(program).values())


@pytest.fixture(scope="module")
def program():
    return zoo.fx_program("bert")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def context(clock, cache=None, **more):
    case = zoo.ARCHITECTURES["bert"]
    feeds = [{k: v.numpy() for k, v in case.inputs(4, 9, seed=i).items()} for i in range(4)]
    return Context(
        **{"calibration": feeds, "measure": clock, "cache": cache, "conditions": CONDITIONS, **more}
    )


def test_numbers_of_units_are_few_and_widths_what_runtimes_like():
    assert grid(4, 6) == [0, 1, 2, 3, 4]
    assert grid(12, 3) == [0, 3, 6, 9, 12]
    assert grid(1536, 5) == [0, 256, 512, 768, 1024, 1280, 1536]
    assert grid(1000, 2) == [0, 320, 672, 1000]


def test_the_table_says_what_one_block_saves_and_is_measured_once(program, tmp_path):
    found, timed = units(program), []
    first, second = kinds(program, found)[:2]
    assert kinds(program, found) == [first, second] * 2
    whole = sum(weights(program).values())

    def timing(candidate):
        timed.append(candidate)
        return whole / sum(weights(candidate).values())

    def made(**more):
        timed.clear()
        known = table(program, found, 1, timing, context(None, tmp_path, **more), "8x8")
        assert known.measured == bool(timed)
        return known

    known = made()
    assert len(timed) == 4
    heads, width = known.times[:2]
    assert sorted(heads) == [0, 2, 4]
    # A neuron is 32 weights in, 32 out and one bias; a head's 8 features are those of four products.
    assert width[36] == pytest.approx(36 * 65 * 4 / whole)
    assert heads[2] == pytest.approx(2 * 8 * (4 * 32 + 3) * 4 / whole)
    assert width[72] == heads[4] == 0

    assert made().times == known.times
    assert not timed
    (file,) = (tmp_path / "latency").iterdir()
    file.write_text("[{")
    assert made().measured
    assert made(conditions={"threads": 2}).measured
    assert made(conditions=None).measured
    assert made(conditions=None).measured


def test_noise_does_not_make_more_units_faster(program):
    ratios = iter([1.5, 1.6, 1.2, 1.3])
    found = units(program)
    known = table(program, found, 1, lambda candidate: next(ratios), context(None), "")
    for row in known.times[:2]:
        saved = [row[count] for count in sorted(row)]
        assert saved == sorted(saved, reverse=True)
        assert saved[0] > 0


def test_the_least_loss_that_saves_enough():
    times = [{0: 0.5, 1: 0.3, 2: 0.0}, {0: 0.4, 2: 0.0}]
    lost = [{0: 9.0, 1: 1.0, 2: 0.0}, {0: 3.0, 2: 0.0}]
    assert cheapest(lost, times, 0.3) == (1, 2)
    assert cheapest(lost, times, 0.35) == (2, 0)
    assert cheapest(lost, times, 0.6) == (1, 0)
    assert cheapest(lost, times, 0.91) is None


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", ",method=fisher,refit=masks"])
def test_it_is_as_fast_as_asked_and_runs_where_the_program_ran(program, options, cache):
    clock = Clock()
    ran = Pipeline.parse(f"prune-to-latency{{speedup=1.2,workload=1x8,choices=1{options}}}").run(
        program, context(clock, cache)
    )
    (step,) = ran.steps
    assert ran.ok, step.error
    assert not step.missed
    lowered = [Pipeline.parse("to-onnx").run(each).program for each in (program, ran.program)]
    assert ticks(lowered[0]) / ticks(lowered[1]) == pytest.approx(
        step.statistics["speed-up measured"], abs=1e-3
    )
    assert step.statistics["speed-up measured"] >= 1.2
    assert clock.processes[-1] == 3  # what was built, and not what is only looked at
    assert set(clock.processes[:-1]) == {1}
    assert step.statistics["after"] < step.statistics["error before refitting"]
    assert set(ran.program.graph.state_dict()) <= set(program.graph.state_dict())


class Hasty(Clock):
    """What was timed as fast once takes a tenth longer from then on, in other weights of the same sizes."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __call__(self, before, after, only=None, processes=1):
        (ratio, *_) = super().__call__(before, after, only).values()
        first = self.seen.setdefault(ticks(after), after.fingerprint())
        ratio = ratio.median if first == after.fingerprint() else ratio.median / 1.1
        return {"1x8": Ratio(ratio, ratio, ratio)}


@pytest.mark.slow
def test_what_is_short_of_the_speed_up_as_built_is_built_anew(program, cache):
    clock = Hasty()
    ran = Pipeline.parse("prune-to-latency{speedup=1.2,choices=3}").run(program, context(clock, cache))
    (step,) = ran.steps
    assert not step.missed
    lowered = [Pipeline.parse("to-onnx").run(each).program for each in (program, ran.program)]
    built = ticks(lowered[0]) / ticks(lowered[1]) / 1.1
    assert step.statistics["speed-up measured"] == pytest.approx(built, abs=1e-3)
    assert built >= 1.2


@pytest.mark.slow
def test_a_speed_up_out_of_reach_leaves_the_fastest_and_says_so(program):
    ran = Pipeline.parse("prune-to-latency{speedup=50,choices=1,refit=none}").run(program, context(Clock()))
    (step,) = ran.steps
    assert "no structure was found that is 50 times as fast: the best measures 2.6" in step.missed
    assert step.statistics["heads removed"] == step.statistics["heads before"]
    assert step.statistics["neurons removed"] == step.statistics["neurons before"]


def test_a_workload_that_is_not_measured_is_named(program):
    ran = Pipeline.parse("prune-to-latency{workload=3x8}").run(program, context(Clock()))
    assert "'3x8' is not among those that this run measures" in str(ran.steps[0].error)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("speedup=1", "give a number above 1"),
        ("damping=0", "least squares need it above 0"),
        ("choices=0", "at least one is needed"),
        ("method=guess", "'method'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(PipelineError, match=sentence):
        Pipeline.parse(f"prune-to-latency{{{options}}}")


def test_texts_are_taken_from_all_over_the_data():
    feeds = [{"ids": np.full((4, 10), i)} for i in range(9)]
    assert [int(feed["ids"][0, 0]) for feed in some(feeds, 120)] == [0, 3, 6]
    assert len(some(feeds, 10**6)) == 9
    assert some([], 5) == []

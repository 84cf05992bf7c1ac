import itertools
import os
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from graphwright.backends.bundles.bundle import Variant, write
from graphwright.backends.measuring import contestants, measure, process, worker
from graphwright.backends.measuring.contestants import recognise, size_of, too_large
from graphwright.backends.measuring.measure import compare, save_feeds, workloads
from graphwright.backends.measuring.process import Warmed, Worker
from graphwright.backends.measuring.ratios import ENOUGH, FEWEST
from graphwright.backends.measuring.workloads import Workload
from graphwright.backends.runtimes.onnxruntime import save_model
from graphwright.ir.errors import MeasureError


class Fake:
    """Stands in for a worker: answers with times from a script, on a machine whose speed drifts."""

    log: list[tuple] = []  # noqa: RUF012 (reset by the fixture)
    drift = itertools.count(1)
    loud = staticmethod(lambda name: False)

    def __init__(self, name, kind, path, threads):
        self.name = name
        self.alive = True
        Fake.log.append(("start", name))

    def ask(self, **request):
        assert self.alive
        Fake.log.append(("time", self.name))
        seconds = {"slow": 2.0, "fast": 1.0}[self.name] * (1 + 0.01 * next(Fake.drift))
        return {
            "seconds": [seconds, 9 * seconds, seconds],
            "disturbed": Fake.loud(self.name),
            "peak_bytes": len(Fake.log),
            "joules": None if self.name == "slow" else 3.0,
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.alive = False
        Fake.log.append(("end", self.name))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(measure, "Worker", Fake)
    Fake.log, Fake.drift = [], itertools.count(1)
    monkeypatch.setattr(Fake, "loud", staticmethod(lambda name: False))
    return Fake


def test_contestants_take_turns_and_every_other_round_is_backwards(fake, make):
    program = make.encoder()
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=4)
    turns = [name for what, name in fake.log if what == "time"]
    assert turns == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert fake.log[:2] == [("start", "slow"), ("start", "fast")]
    cell = found.cells["fast"]["1x4"]
    assert cell.speedup.median == pytest.approx(2, rel=0.02)
    assert cell.speedup.interval[0] > 1.9
    assert cell.ms == pytest.approx(1050, rel=0.05)
    assert found.cells["slow"]["1x4"].speedup.median == 1
    assert (cell.joules, found.cells["slow"]["1x4"].joules) == (3.0, None)
    assert not found.in_turn


def test_rounds_end_where_further_ones_would_tell_nothing(fake, make):
    program = make.encoder()
    fake.drift = itertools.repeat(1)
    calls = workloads(program, ["1x4", "2x4"])
    seen: list = []
    found = compare({"slow": program, "fast": program}, calls, rounds=9, progress=lambda *s: seen.append(s))
    assert len(found.cells["fast"]["1x4"].rounds) == FEWEST
    assert [done for _, done, _ in seen] == [*range(12), *range(18, 30), 36]


def test_ratios_that_are_not_known_to_five_in_a_hundred_take_all_rounds(fake, make):
    program = make.encoder()
    fake.drift = itertools.cycle([1, 1, 20, 1])  # one in four turns is a fifth slower
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=9)
    assert len(found.cells["fast"]["1x4"].rounds) == 9


def test_a_ratio_near_one_is_held_to_other_processes(fake, make, monkeypatch):
    """The second process of each is as fast as the other's first: what was a difference is none."""
    program, faster = make.encoder(), {"slow": [1.0, 0.97], "fast": [0.97, 1.0]}
    begin, ask = Fake.__init__, Fake.ask

    def start(self, name, *arguments):
        begin(self, name, *arguments)
        self.pace = faster[name].pop(0)

    monkeypatch.setattr(Fake, "__init__", start)
    monkeypatch.setattr(
        Fake, "ask", lambda self, **request: ask(self) | {"seconds": [self.pace * (1 + next(noise) / 1e3)]}
    )
    noise, calls = itertools.cycle(range(7)), workloads(program, ["1x4"])
    seen: list = []
    found = compare({"slow": program, "fast": program}, calls, rounds=7, progress=lambda *s: seen.append(s))
    assert [name for what, name in fake.log if what == "start"] == ["slow", "fast"] * 2
    cell = found.cells["fast"]["1x4"]
    assert len(cell.rounds) == 14 - (7 - FEWEST)  # the first ones were known well enough
    low, high = cell.speedup.interval
    assert low < 0.98 < 1 < 1.02 < high
    assert seen[-1][1:] == (28, 28)


def test_a_small_difference_that_other_processes_have_as_well_is_one(fake, make, monkeypatch):
    program, ask = make.encoder(), Fake.ask
    pace = {"slow": 1.0, "fast": 0.97}
    monkeypatch.setattr(Fake, "ask", lambda self, **request: ask(self) | {"seconds": [pace[self.name]]})
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=7)
    cell = found.cells["fast"]["1x4"]
    assert [name for what, name in fake.log if what == "start"] == ["slow", "fast"] * 2
    assert len(cell.rounds) == FEWEST + ENOUGH
    assert cell.speedup.interval == pytest.approx((1 / 0.97, 1 / 0.97))


def test_a_disturbed_turn_is_taken_again_within_a_limit(fake, make, monkeypatch):
    program, count = make.encoder(), itertools.count()
    monkeypatch.setattr(Fake, "loud", staticmethod(lambda name: next(count) in {0, 3}))
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=4)
    turns = [name for what, name in fake.log if what == "time"]
    assert turns == ["slow", "slow", "fast", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    assert not found.loud
    assert len(found.cells["slow"]["1x4"].rounds) == 4


def test_a_machine_that_stays_loud_is_said_to_be_and_its_intervals_are_wide(fake, make, monkeypatch):
    monkeypatch.setattr(Fake, "loud", staticmethod(lambda name: name == "fast"))
    program = make.encoder()
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=4)
    assert sum(what == "time" for what, _ in fake.log) == 8 + 4  # half as many again
    assert found.loud.startswith("The machine was busy with other work: 4 of 8 turns were disturbed")
    cell = found.cells["fast"]["1x4"]
    ratios = [b / a for b, a in zip(found.cells["slow"]["1x4"].rounds, cell.rounds, strict=True)]
    assert cell.speedup.interval == (cell.speedup.low, cell.speedup.high) == (min(ratios), max(ratios))
    assert found.to_json()["contestants"]["fast"]["workloads"]["1x4"]["disturbed"] == [True] * 4


def test_huge_contestants_are_loaded_one_at_a_time(fake, make, monkeypatch):
    monkeypatch.setattr(contestants, "HUGE", 10)
    program = make.encoder()
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4", "2x4"]), rounds=9)
    assert found.in_turn
    assert found.rounds == measure.TURNS
    alive = 0
    for what, _ in fake.log:
        alive += {"start": 1, "end": -1}.get(what, 0)
        assert alive in (0, 1)
    assert found.cells["fast"]["2x4"].speedup.median == pytest.approx(2, rel=0.03)


def test_what_is_too_large_depends_on_the_memory_that_is_free(monkeypatch):
    monkeypatch.setattr(contestants.psutil, "virtual_memory", lambda: SimpleNamespace(available=3000))
    assert not too_large([400, 500])
    assert too_large([500, 501])


def test_json_has_every_number(fake, make):
    program = make.encoder()
    found = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=3).to_json()
    cell = found["contestants"]["fast"]["workloads"]["1x4"]
    told = {"ms", "ms_quartiles", "speedup", "quartiles", "interval95", "rounds_ms", "disturbed", "p95_ms"}
    assert cell.keys() == {*told, "joules"}
    assert (len(cell["rounds_ms"]), cell["disturbed"]) == (3, [False] * 3)
    assert found["contestants"]["fast"]["peak_bytes"] > 0
    assert found["threads"] == 2


def test_the_tail_is_of_every_call_and_not_of_medians(fake, make):
    program = make.encoder()
    cells = compare({"slow": program, "fast": program}, workloads(program, ["1x4"]), rounds=3).cells
    cell = cells["fast"]["1x4"]
    calls = [seconds for one in cell.rounds for seconds in (one, 9 * one, one)]
    assert cell.p95_ms == pytest.approx(1e3 * float(np.quantile(calls, 0.95)), rel=1e-12)
    assert cell.p95_ms > 8 * cell.ms


def test_progress_reaches_its_end(fake, make):
    seen, program = [], make.encoder()
    compare(
        {"slow": program, "fast": program},
        workloads(program, ["1x4"]),
        rounds=2,
        progress=lambda *step: seen.append(step),
    )
    assert [done for _, done, _ in seen] == [0, 1, 2, 3, 4]
    assert {total for *_, total in seen} == {4}


def left_over():
    return [
        p
        for p in psutil.Process().children(recursive=True)
        if "graphwright.backends.measuring.worker" in p.cmdline()
    ]


def test_programs_files_and_bundles_side_by_side(make, tmp_path):
    """The real thing, on a model of no size: every kind answers, and a contestant equals itself, loosely."""
    program = make.encoder()
    save_model(program, tmp_path / "m.onnx")
    bundle = write(tmp_path / "bundle", [Variant("a", program)])
    entrants = {"program": program, "again": program, "file": tmp_path / "m.onnx", "bundle": bundle}
    found = compare(entrants, workloads(program, ["8x12", "mixed:32"]), threads=1, rounds=5, runs=20)
    assert list(found.cells) == list(entrants)
    for cells in found.cells.values():
        for cell in cells.values():
            assert 0 < cell.low_ms <= cell.ms <= cell.high_ms
    assert all(10e6 < peak < 1e9 for peak in found.peak_bytes.values())
    assert 0.2 < found.cells["again"]["8x12"].speedup.median < 5
    assert left_over() == []


def test_a_contestant_that_fails_is_named_with_its_last_word(make, tmp_path):
    program = make.encoder()
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(
        MeasureError, match=r"^bad failed while measuring: ONNX Runtime cannot load bad\.onnx"
    ):
        compare({"good": program, "bad": tmp_path / "bad.onnx"}, workloads(program, ["1x4"]))
    assert left_over() == []


def test_a_contestant_with_other_inputs_is_named(make, tmp_path):
    program = make.encoder()
    save_model(program, tmp_path / "m.onnx")
    narrow = workloads(replace(program, inputs=program.inputs[:1]), ["1x4"])
    with pytest.raises(
        MeasureError, match=r"file failed .* takes an input 'attention_mask' that the workload"
    ):
        compare({"file": tmp_path / "m.onnx"}, narrow)


def test_a_killed_contestant_is_said_to_be(make, tmp_path):
    save_model(make.encoder(), tmp_path / "m.onnx")
    with Worker("it", "onnxruntime", tmp_path / "m.onnx", 1) as worker:
        os.kill(worker._process.pid, 9)
        with pytest.raises(MeasureError, match=r"killed by signal 9 \(out of memory\?\)"):
            worker.ask(do="time", feed="", runs=1, warmup=0, seconds=1)


def test_a_worker_may_load_while_others_work(make, tmp_path):
    save_model(make.encoder(), tmp_path / "m.onnx")
    (tmp_path / "none.onnx").write_bytes(b"none")
    np.savez(tmp_path / "f.npz", **make.feed())
    with Worker("it", "onnxruntime", tmp_path / "m.onnx", 1, wait=False) as worker:
        asked = worker.ask(do="time", feed=str(tmp_path / "f.npz"), runs=1, warmup=0, seconds=1)
        assert asked["seconds"]
    with (
        Worker("it", "onnxruntime", tmp_path / "none.onnx", 1, wait=False) as worker,
        pytest.raises(MeasureError, match="it failed while measuring: ONNX Runtime cannot load none"),
    ):
        worker.ready()


def test_a_worker_ends_with_its_parent(make, tmp_path):
    save_model(make.encoder(), tmp_path / "m.onnx")
    worker = Worker("it", "onnxruntime", tmp_path / "m.onnx", 1)
    worker._process.stdin.close()  # what a parent's death does
    assert worker._process.wait(timeout=30) == 0
    worker.close()


def test_an_interruption_leaves_no_worker(make):
    program = make.encoder()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare({"a": program, "b": program}, workloads(program, ["1x4"]), progress=interrupt)
    assert left_over() == []


def test_workers_are_pinned_to_as_many_cpus_as_threads(make, tmp_path, monkeypatch):
    save_model(make.encoder(), tmp_path / "m.onnx")
    cpus = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(process, "allowed_cpus", lambda: (*cpus, 4096))
    monkeypatch.setattr(process, "pick_cpus", lambda threads: cpus[-1:])
    with Worker("it", "onnxruntime", tmp_path / "m.onnx", 1) as worker:
        assert os.sched_getaffinity(worker._process.pid) == {cpus[-1]}


def test_paths_are_recognised_by_what_lies_there(make, tmp_path):
    save_model(make.encoder(), tmp_path / "m.onnx")
    bundle = write(tmp_path / "bundle", [Variant("a", make.encoder())])
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    assert recognise("x", tmp_path / "m.onnx")[0] == "onnxruntime"
    assert recognise("x", bundle)[0] == "bundle"
    assert recognise("x", str(tmp_path / "hf"))[0] == "torch"
    assert recognise("x", f"torch-compile:{tmp_path / 'hf'}") == ("torch-compile", tmp_path / "hf")
    assert size_of(bundle) > 3000
    with pytest.raises(MeasureError, match="x: there is nothing at"):
        recognise("x", tmp_path / "none")
    with pytest.raises(MeasureError, match=r"is no \.onnx file, bundle or Hugging Face directory"):
        recognise("x", tmp_path)


def test_nothing_to_compare_and_wrong_dialects_are_refused(make):
    program = make.encoder()
    with pytest.raises(MeasureError, match="nothing to compare"):
        compare({}, workloads(program, ["1x4"]))
    with pytest.raises(MeasureError, match="a is of the fx dialect: run to-onnx"):
        compare({"a": replace(program, dialect="fx")}, workloads(program, ["1x4"]))


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b.npy"])
def test_an_input_may_be_named_as_numpys_own_arguments_are(name):
    array = np.arange(6.0).reshape(2, 3)
    with save_feeds([Workload("w", {name: array})]) as paths, np.load(paths["w"]) as stored:
        assert list(stored) == [name]
        np.testing.assert_array_equal(stored[name], array)


def test_a_contestants_first_turn_at_a_workload_begins_with_calls_like_it():
    asked = []

    class Answering:
        def ask(self, **request):
            asked.append((request["feed"], request["settle"], request["warmup"]))

    warmed = Warmed(Answering(), 2, "short")
    for feed in ("long", "long", "short"):
        warmed.time(feed, 1, 1.0)
    assert asked == [("long", "short", 2), ("long", "short", 0), ("short", "short", 2)]


def test_a_turn_settles_on_short_calls_which_are_not_timed(tmp_path):
    called = []

    def run(feed):
        called.append(len(feed["x"]))
        time.sleep(0.01)

    for size in (1, 5):
        np.savez(tmp_path / f"{size}.npz", x=np.zeros(size))
    request = {"feed": str(tmp_path / "5.npz"), "settle": str(tmp_path / "1.npz"), "runs": 1, "seconds": 0}
    assert len(worker._time(run, {**request, "warmup": 0}, watched=False)["seconds"]) == 1
    assert called == [*[1] * (len(called) - 1), 5]
    assert len(called) >= 3
    called.clear()
    worker._time(run, {**request, "warmup": 4}, watched=False)
    assert called == [5] * 5


def test_a_workload_is_timed_within_its_seconds(make, tmp_path):
    program = make.encoder()
    save_model(program, tmp_path / "m.onnx")
    np.savez(tmp_path / "f.npz", **make.feed())
    with Worker("it", "onnxruntime", tmp_path / "m.onnx", 1) as worker:
        request = {"do": "time", "feed": str(tmp_path / "f.npz"), "warmup": 1}
        taken = worker.ask(**request, runs=7, seconds=60)["seconds"]
        assert len(taken) > 7  # short calls go on until the scheduler has settled
        assert len(worker.ask(**request, runs=1000, seconds=0)["seconds"]) in (
            1,
            2,
        )  # where one was disturbed

"""Searched schedules: right when applied, kept between runs, whatever ends a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tvm
from graphwright.backends.cache import cache_directory
from graphwright.backends.target import detect
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from graphwright.backends.tvm.schedule.generic import schedule_generic
from graphwright.backends.tvm.tune import metaschedule, schedules, search, tasks, tuning
from graphwright.backends.tvm.tune.candidates import Builder
from tvm import relax

TRIALS = 3
BATCH, DEEP, COLUMNS = 3, 40, 24


@pytest.fixture(scope="module")
def llvm():
    return llvm_target(detect(), 2)


def quick(patch):
    patch.setattr(metaschedule, "BATCH", 3)
    patch.setattr(metaschedule, "POPULATION", 8)
    patch.setattr(search, "ROUNDS", 2)
    patch.setattr(search, "TURN", 1e-4)
    patch.setattr(tasks, "FLOOR", 0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache that lies beside what nobody may touch."""
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    quick(monkeypatch)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def module():
    """x, y -> a product that no library kernel covers, and a softmax, called once each."""
    names = {"x": (BATCH, COLUMNS, DEEP), "y": (BATCH, COLUMNS, DEEP)}
    x, y = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in names.items())
    builder = relax.BlockBuilder()
    with builder.function("main", [x, y]):
        with builder.dataflow():
            product = builder.emit(relax.op.matmul(x, relax.op.permute_dims(y, [0, 2, 1])))
            result = builder.emit_output(relax.op.nn.softmax(product))
        builder.emit_func_output(result)
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
    ]
    return tvm.transform.Sequential([*passes, relax.transform.FuseTIR()])(builder.get())


@pytest.fixture(scope="module")
def searched(module, llvm, tmp_path_factory):
    """(what tuning returned, its progress, the file it wrote)"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path_factory.mktemp("searched")))
        quick(patch)
        seen = []
        tuned = list(tuning.tune(module, llvm, TRIALS, lambda *step: seen.append(step)))
        return tuned, seen, records(llvm).read_bytes()


@pytest.fixture
def on_record(searched, llvm, cache):
    """The lines of that file, which is this test's own now."""
    write(llvm, [json.loads(line) for line in searched[2].splitlines()])
    return [json.loads(line) for line in searched[2].splitlines()]


def write(llvm, lines):
    records(llvm).parent.mkdir(parents=True, exist_ok=True)
    records(llvm).write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(module, llvm):
    """(found, expected in float64)"""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((BATCH, COLUMNS, DEEP)).astype("float32") for _ in range(2))
    machine = relax.VirtualMachine(tvm.compile(schedule_generic(module, llvm), target=llvm), tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(y)).numpy()
    product = x.astype(np.float64) @ y.astype(np.float64).swapaxes(1, 2)
    grown = np.exp(product - product.max(-1, keepdims=True))
    return found, grown / grown.sum(-1, keepdims=True)


def records(llvm):
    return schedules.open_schedules(llvm).path


def slow_generic(lines, seconds=None):
    """Every schedule without search as slow as a second; with `seconds`, everything found takes that."""
    slow = [{**line, "generic": 1.0} if "generic" in line else line for line in lines]
    return [{**line, "seconds": seconds} if seconds and line.get("trace") else line for line in slow]


def scheduled(module):
    return sum(schedules.SCHEDULED in function.attrs for _, function in module.functions_items())


def test_tuned_functions_are_right_and_not_searched_again(module, llvm, searched, on_record):
    tuned, seen, _ = searched
    assert tuned  # how many are worth a search depends on how long they take here
    assert 0 < max(each.trials for each in tuned) <= TRIALS
    assert len(seen) == sum(each.trials for each in tuned)
    write(llvm, slow_generic(on_record))
    applied = schedules.apply_database(module, llvm)
    assert scheduled(applied) == len(tuned)
    assert scheduled(module) == 0
    found, expected = run(applied, llvm)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    again = {each.name: each.trials for each in tuning.tune(module, llvm, TRIALS)}
    assert {each.name: again.get(each.name) for each in tuned} == {each.name: 0 for each in tuned}


def test_more_trials_go_on_where_the_last_ended(module, llvm, on_record):
    more = list(tuning.tune(module, llvm, TRIALS + 1))
    assert max(each.trials for each in more) == 1


def test_what_is_no_faster_is_not_applied(module, llvm, on_record):
    write(llvm, slow_generic(on_record, seconds=0.98))
    assert schedules.apply_database(module, llvm) is module
    write(llvm, slow_generic(on_record, seconds=0.96))
    assert scheduled(schedules.apply_database(module, llvm)) > 0


def test_nothing_on_record_changes_nothing(module, llvm):
    assert schedules.apply_database(module, llvm) is module


def test_a_file_cut_short_still_serves(module, llvm, on_record):
    lines = slow_generic(on_record)
    write(llvm, [*lines, lines[-1]])
    records(llvm).write_bytes(records(llvm).read_bytes()[:-40])
    applied = schedules.apply_database(module, llvm)
    assert scheduled(applied) > 0
    found, expected = run(applied, llvm)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    key = lines[0]["function"]
    schedules.open_schedules(llvm).add(key, generic=7.0)
    assert schedules.open_schedules(llvm).known(key).generic == 7.0


@pytest.mark.parametrize(
    "trace", [{"no": "trace"}, ["x"], [[["Decompose"]], [], [], []], "text", [[], [], [], []]]
)
def test_a_trace_that_fits_nothing_is_left_alone(module, llvm, trace):
    name = next(v for v, function in module.functions_items() if schedules.is_open(function))
    key = schedules.key_of(schedules.workload(module[name]))
    records = schedules.open_schedules(llvm)
    records.add(key, generic=1.0)
    records.add(key, seconds=0.1, trace=trace)
    assert scheduled(schedules.apply_database(module, llvm)) == 0


def test_finished_kernels_are_left_alone(module, llvm):
    finished = tvm.IRModule(
        {
            v: function.with_attr(schedules.KERNEL, "own") if schedules.is_open(function) else function
            for v, function in module.functions_items()
        }
    )
    assert list(tuning.tune(finished, llvm, 2)) == []


def test_what_takes_no_time_is_not_searched(module, llvm, on_record, monkeypatch):
    monkeypatch.setattr(tasks, "FLOOR", 1.0)
    assert list(tuning.tune(module, llvm, TRIALS + 1)) == []


def test_nothing_beside_the_artifacts_is_removed(module, llvm, tmp_path, monkeypatch):
    """TVM's own clean-up removes the directory of each artifact it is given."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (cache_directory() / "other").mkdir(parents=True)
    assert list(tuning.tune(module, llvm, 2))
    assert (tmp_path / "precious" / "file").read_text() == "kept"
    assert {path.name for path in cache_directory().iterdir()} == {"other", "tvm"}
    assert {path.name for path in tmp_path.iterdir()} == {"precious", "cache"}  # and the artifacts are gone


def test_interruption_keeps_what_was_found(module, llvm):
    def interrupt(description, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(tuning.tune(module, llvm, TRIALS, interrupt))
    known = [json.loads(line) for line in records(llvm).read_text().splitlines()]
    assert sum("seconds" in line for line in known) == 2


def test_ctrl_c_in_the_midst_of_tvm_waits_until_it_is_out():
    reached = []

    def work():
        with metaschedule._unbroken():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            reached.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == [True]


def test_other_threads_leave_signals_alone():
    entered = []

    def work():
        with metaschedule._unbroken():
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_candidate_that_takes_too_long_is_given_up(module, llvm):
    source = schedules.workload(next(f for _, f in module.functions_items() if schedules.is_open(f)))
    with Builder(llvm, seconds=0.001) as hasty:
        assert hasty.build(source) is None
        hasty._seconds = 60.0
        assert hasty.build(source) is not None  # in a new process


def test_a_candidate_that_does_not_compile_is_no_candidate(module):
    source = schedules.workload(next(f for _, f in module.functions_items() if schedules.is_open(f)))
    foreign = "x86_64" if detect().arch == "aarch64" else "aarch64"
    with Builder(tvm.target.Target({"kind": "llvm", "mtriple": f"{foreign}-linux-gnu"})) as builder:
        assert builder.build(source) is None


def test_a_killed_search_loses_one_candidate_at_most(module, llvm, cache):
    """The process is killed from outside while it is searching."""
    model = cache.parent / "module.json"
    model.write_text(tvm.ir.save_json(module))
    code = (
        "import sys, tvm; from pathlib import Path\n"
        "from graphwright.backends.target import detect\n"
        "from graphwright.backends.tvm.tune import metaschedule, tuning\n"
        "from graphwright.backends.tvm.machine.llvm_target import llvm_target\n"
        "metaschedule.BATCH, metaschedule.POPULATION = 3, 8\n"
        "module = tvm.ir.load_json(Path(sys.argv[1]).read_text())\n"
        "list(tuning.tune(module, llvm_target(detect(), 2), 30, lambda *step: print(step, flush=True)))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(model)], stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        assert process.stdout.readline()
    process.kill()
    process.wait(30)
    lines = [json.loads(line) for line in records(llvm).read_text().splitlines()]
    assert sum("seconds" in line for line in lines) >= 2
    kept = schedules.open_schedules(llvm)
    assert sum(kept.known(key).tried for key in {line["function"] for line in lines}) >= 2

"""What others' work takes from a process: as the kernel tells it, and as calls are sorted by it."""

import subprocess
import sys
import time

import pytest
from graphwright.backends.measuring.disturbance import Watch, undisturbed
from hypothesis import given
from hypothesis import strategies as st


def proc(root, delays, stolen):
    """A /proc of threads that waited for so many nanoseconds, and CPUs that so many ticks were stolen of."""
    for number, delay in enumerate(delays):
        task = root / "self" / "task" / str(number)
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(f"123456 {delay} 7\n")
    lines = [f"cpu{number} 9 8 7 6 5 4 3 {ticks} 0 0" for number, ticks in enumerate(stolen)]
    (root / "stat").write_text("\n".join(["cpu  1 2 3 4 5 6 7 999 0 0", *lines, "intr 1 2 3"]))


def test_waiting_is_summed_over_threads_and_stealing_over_cpus(tmp_path):
    proc(tmp_path, [2_000_000, 500_000], [100, 30, 7])
    with Watch(tmp_path) as watch:
        assert watch.waited() == pytest.approx(2.5e-3)
        assert watch.stolen([0, 2]) == pytest.approx(1.07)  # a hundred ticks a second
        assert watch.stolen([]) == 0
        proc(tmp_path, [2_000_000, 4_500_000], [100, 30, 7])
        assert watch.waited() == pytest.approx(6.5e-3)


def test_a_kernel_that_tells_nothing_disturbs_nothing(tmp_path):
    with Watch(tmp_path) as watch:
        before = watch.waited()  # involuntary switches of this very process
        assert watch.stolen([0, 1]) == 0
        assert before >= 0
    (tmp_path / "stat").write_text("cpu0 1 2 3")
    with Watch(tmp_path) as watch:
        assert watch.stolen([0]) == 0


def test_two_processes_on_one_core_disturb_each_other():
    """The real kernel: beside another that computes on the same CPU, a process waits for about half of its
    time; anything from a tenth on is far beyond what a quiet machine shows."""
    spin = "import time; end = time.time() + 20\nwhile time.time() < end: pass"
    here = """
import os, sys, time
from graphwright.backends.measuring.disturbance import Watch
with Watch() as watch:
    before, end = watch.waited(), time.time() + 0.5
    while time.time() < end: pass
    print(watch.waited() - before)
"""
    pin = f"import os; os.sched_setaffinity(0, [{min(__import__('os').sched_getaffinity(0))}])\n"
    other = subprocess.Popen([sys.executable, "-c", pin + spin])
    try:
        time.sleep(0.2)
        told = subprocess.run([sys.executable, "-c", pin + here], capture_output=True, text=True, check=True)
    finally:
        other.kill()
        other.wait()
    assert float(told.stdout) > 0.05


def test_calls_that_waited_do_not_count():
    assert undisturbed([1.0, 2.0, 1.1], [0.0, 0.9, 0.01], 0.0) == ([1.0, 1.1], False)
    assert undisturbed([1.0, 2.0, 2.1], [0.0, 0.9, 0.9], 0.0) == ([1.0, 2.0, 2.1], True)
    assert undisturbed([1.0, 1.0], [0.0, 0.0], 0.2) == ([1.0, 1.0], True)  # a hypervisor took a tenth
    assert undisturbed([1.0, 1.0], [0.0, 0.0], 0.1) == ([1.0, 1.0], False)


@given(st.lists(st.tuples(st.floats(1e-4, 10), st.floats(0, 10)), min_size=1, max_size=20))
def test_some_calls_always_count(calls):
    counted, disturbed = undisturbed(*zip(*calls, strict=True), 0.0)
    assert counted
    assert 2 * len(counted) >= len(calls)
    assert disturbed is (2 * sum(lost <= 0.02 * taken for taken, lost in calls) < len(calls))

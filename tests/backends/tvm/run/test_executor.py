"""The thread that TVM lives on: one pool, nobody else's CPUs, alive after a fork and gone with its owner."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest
from graphwright.backends.target import allowed_cpus, pick_cpus
from graphwright.backends.tvm.run.executor import Executor
from graphwright.backends.tvm.run.library import runtime

linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")


def tasks():
    return set(os.listdir("/proc/self/task"))


def test_what_is_prepared_is_what_functions_get_and_all_runs_on_one_thread():
    executor = Executor(2, lambda: threading.get_ident())
    homes = {
        executor.do(lambda prepared, offset: (prepared, threading.get_ident() + offset), 0) for _ in range(3)
    }
    assert len(homes) == 1
    prepared, home = homes.pop()
    assert prepared == home != threading.get_ident()


def test_an_error_comes_back_and_the_next_call_works():
    executor = Executor(1, lambda: "ready")
    with pytest.raises(ZeroDivisionError):
        executor.do(lambda _: 1 / 0)
    assert executor.do(lambda prepared: prepared) == "ready"
    with pytest.raises(ZeroDivisionError):
        Executor(1, lambda: 1 / 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_tvm_uses_as_many_threads_as_it_is_told(threads):
    executor = Executor(threads, lambda: None)
    count = executor.do(lambda _: runtime().get_global_func("runtime.NumThreads")())
    assert count == len(pick_cpus(threads))


@linux
def test_callers_keep_their_cpus_and_get_no_pool():
    before, running = os.sched_getaffinity(0), tasks()
    executor = Executor(2, lambda: None)
    made = len(tasks() - running)
    assert made <= 2  # the thread, and one worker
    barrier, cpus = threading.Barrier(9), []

    def call():
        executor.do(lambda _: runtime().get_global_func("runtime.NumThreads")())
        cpus.append(os.sched_getaffinity(0))
        barrier.wait(10)
        barrier.wait(10)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    barrier.wait(10)
    found = len(tasks() - running)
    barrier.wait(10)
    assert found == made + 8
    assert cpus == [before] * 8
    assert os.sched_getaffinity(0) == before


ALONE = """
import os, threading
from graphwright.backends.tvm.run.executor import Executor
from graphwright.backends.tvm.run.library import runtime
runtime()  # brings NumPy, which has threads too
os.sched_setaffinity(0, {cpus})
before = set(os.listdir("/proc/self/task"))
executor = Executor(2, threading.get_native_id)
home = executor.do(lambda prepared: prepared)
workers = [int(task) for task in set(os.listdir("/proc/self/task")) - before if int(task) != home]
print([sorted(os.sched_getaffinity(worker)) for worker in workers])
"""


@linux
@pytest.mark.skipif(len(allowed_cpus()) < 2, reason="takes two CPUs")
def test_a_process_with_a_cpu_a_thread_has_its_workers_bound():
    cpus = set(allowed_cpus()[:2])
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(cpus=cpus)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str([[max(cpus)]])


@linux
def test_where_there_are_more_cpus_the_workers_may_use_them_all(monkeypatch):
    from graphwright.backends.tvm.run import executor as module

    monkeypatch.setattr(module, "pick_cpus", lambda threads: allowed_cpus()[:1])
    executor = Executor(1, lambda: None)
    assert executor.do(lambda _: os.sched_getaffinity(0)) == set(allowed_cpus())


def test_callers_take_turns():
    executor, inside, most = Executor(2, lambda: None), 0, 0

    def function(_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1

    callers = [threading.Thread(target=executor.do, args=(function,)) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork")
def test_a_forked_child_has_a_thread_of_its_own():
    executor = Executor(2, os.getpid)
    assert executor.do(lambda prepared: prepared) == os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if executor.do(lambda prepared: prepared == os.getpid()) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_the_thread_goes_with_its_owner_and_lets_go_of_arguments():
    class Large:
        pass

    executor = Executor(2, lambda: None)
    thread = executor.do(lambda _: threading.current_thread())
    freed = threading.Event()
    argument = Large()
    weakref.finalize(argument, freed.set)
    executor.do(lambda _, given: None, argument)
    del argument
    assert freed.wait(5)
    del executor
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


MIDST = """
import threading, time
from graphwright.backends.tvm.run.executor import Executor
executor = Executor(2, lambda: None)
threading.Thread(target=executor.do, args=(lambda _: (time.sleep(0.5), print("ended")),), daemon=True).start()
time.sleep(0.1)
"""


def test_the_interpreter_ends_when_a_call_has():
    done = subprocess.run(
        [sys.executable, "-c", MIDST], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")

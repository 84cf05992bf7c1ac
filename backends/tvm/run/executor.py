"""A thread that TVM lives on: its virtual machine runs one call at a time, and a pool of workers belongs to
the thread that calls."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ...target import allowed_cpus, pick_cpus
from .library import runtime

_ONE_CPU_EACH, _ALL_CPUS = -2, -3  # TVM's ThreadGroup::AffinityMode
# An idle worker looks for work so many times (some 3 ms) before it sleeps. TVM's own 300,000 keep a core busy
# for 0.1 s after every call.
_SPINS = "10000"


class Executor:
    """Runs functions one after another on a thread of its own, whichever threads they come from.

    TVM makes a pool of spinning workers for every thread that calls it, and binds that thread to CPUs: ten
    callers would have ten pools, and their own affinity changed. Here there is one pool. It has a CPU for
    each worker where the process may use no more CPUs than that; elsewhere the system places the workers,
    since other processes may want the same CPUs. After a fork the child makes a thread of its own.

    Args:
        threads: that TVM's functions run on, this one included; no more than there are CPUs.
        prepare: runs on the thread before anything else, and again in a forked child. What it returns is the
            first argument of every function.

    Raises:
        Whatever `prepare` does.
    """

    def __init__(self, threads: int, prepare: Callable[[], Any]) -> None:
        self._threads, self._prepare = threads, prepare
        self._lock = threading.Lock()
        self._start()

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(prepared, *arguments) on the thread; raises what it raises."""
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._start()
        job = _Job(function, arguments)
        self._jobs.put(job)
        return job.outcome()

    def _start(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        started = _Job(_begun, (self._threads, self._prepare))
        thread = threading.Thread(
            target=_serve, args=(self._jobs, started), name="graphwright-tvm", daemon=True
        )
        thread.start()
        started.outcome()
        weakref.finalize(self, _stop, self._jobs, thread)
        self._process = os.getpid()


class _Job:
    """A function, the lock that its caller waits for, and what came of it."""

    __slots__ = ("_arguments", "_done", "_error", "_function", "_result")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function, self._arguments = function, arguments
        self._done = threading.Lock()
        self._done.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, prepared: Any) -> Any:
        try:
            self._result = self._function(prepared, *self._arguments)
        except BaseException as error:
            self._error = error
        self._done.release()
        return self._result

    def outcome(self) -> Any:
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._result


def _serve(jobs: SimpleQueue[_Job | None], started: _Job) -> None:
    prepared = started.run(None)
    while (job := jobs.get()) is not None:
        job.run(prepared)
        del job  # or the last call's arrays would live until the next call


def _begun(_: None, threads: int, prepare: Callable[[], Any]) -> Any:
    """Gives the thread that calls a pool of its own, and prepares."""
    cpus, allowed = pick_cpus(threads), allowed_cpus()
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", _SPINS)  # read when the process's first worker starts
    configure = runtime().get_global_func("runtime.config_threadpool")
    # Explicit CPUs: their number is what TVM_NUM_THREADS would say, for this thread alone.
    configure(_ONE_CPU_EACH, len(cpus), [str(cpu) for cpu in cpus])
    if len(cpus) < len(allowed):
        if len(cpus) > 1:
            configure(_ALL_CPUS, len(cpus), [str(cpu) for cpu in allowed])
        elif hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, allowed)
    return prepare()


def _stop(jobs: SimpleQueue[_Job | None], thread: threading.Thread) -> None:
    """Lets a running call end: a thread that the interpreter kills in the midst of one takes it down."""
    jobs.put(None)
    if thread is not threading.current_thread():
        thread.join()

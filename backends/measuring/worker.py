"""One contestant of a measurement, a process: `python -m graphwright.backends.measuring.worker`.

Requests come as JSON lines on stdin, answers go as JSON lines to stdout. The process ends when its parent
closes stdin or dies, whatever it is doing then.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import GraphwrightError, InputError
from ..running.runner import load
from ..runtimes.reference import open_directory
from ..runtimes.session import open_session, run_session
from ..target import allowed_cpus
from . import energy
from .disturbance import Watch, undisturbed
from .effort import LEAST, SETTLE

Run = Callable[[Mapping[str, np.ndarray]], Any]

LOOK = 1e-3  # seconds between two looks at how long threads waited: one takes some hundredths of that


def main() -> None:
    # Libraries print to stdout; the protocol keeps the real one to itself.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    run: Run | None = None
    alone = True  # where a contestant has more threads than CPUs, they wait for each other
    try:
        while True:
            request = requests.get()
            if request["do"] == "load":
                run = _load(request)
                alone = request["threads"] <= len(allowed_cpus())
                answer: dict[str, Any] = {"ready": True}
            else:
                assert run is not None
                answer = _time(run, request, alone)
            channel.write(json.dumps(answer) + "\n")
            channel.flush()
    except GraphwrightError as error:
        sys.exit(str(error))


def _listen(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def _load(request: dict[str, Any]) -> Run:
    """The contestant, on the CPUs it is given; the pinning comes first, so that every pool sees it."""
    if request["cpus"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cpus"])
    path, threads = Path(request["path"]), request["threads"]
    if request["kind"] == "onnxruntime":
        session = open_session(path, threads)
        names = [entry.name for entry in session.get_inputs()]
        return lambda feed: run_session(session, _chosen(names, feed))
    if request["kind"] == "bundle":
        bundle = load(path, threads, verify=False)
        return lambda feed: bundle.run(_chosen(bundle.input_names, feed))
    artifact = open_directory(path, threads, compiled=request["kind"] == "torch-compile")
    return lambda feed: artifact.run(_chosen([n for n in artifact.input_names if n in feed], feed))


def _chosen(names: Any, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that this contestant takes; workloads may have more of them."""
    missing = [name for name in names if name not in feed]
    if missing:
        raise InputError(f"it takes an input {missing[0]!r} that the workload does not have")
    return {name: feed[name] for name in names}


@cache
def _feed(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _time(run: Run, request: dict[str, Any], watched: bool = True) -> dict[str, Any]:
    """Seconds of each run after the warm-up that nothing disturbed, or of all where most were disturbed.

    Timed are `runs` and `LEAST` seconds of them, or fewer (two at least where `runs` are) when `seconds` end
    first. Before them come `warmup` calls like them, and calls of `settle`, or of the same, for as long as
    the scheduler takes. watched: whether waiting for a core counts as disturbance.
    """
    feed, short = _feed(request["feed"]), _feed(request.get("settle", request["feed"]))
    begin = time.perf_counter()
    for _ in range(request["warmup"]):
        run(feed)
    while time.perf_counter() - begin < SETTLE:
        run(short)
    zones, cpus = energy.domains(), allowed_cpus()
    taken: list[float] = []
    waited: list[float] = []
    with Watch() as watch:
        drawn, stolen, looked = energy.read(zones), watch.stolen(cpus), watch.waited()
        begin = end = opened = time.perf_counter()
        while len(taken) < request["runs"] or end - begin < LEAST:
            start = time.perf_counter()
            run(feed)
            end = time.perf_counter()
            taken.append(end - start)
            if end - opened > LOOK:
                since, looked = looked, watch.waited()
                waited += _shares(taken[len(waited) :], looked - since)
                opened = time.perf_counter()
            if end - begin > request["seconds"] and len(taken) >= min(2, request["runs"]):
                break
        waited += _shares(taken[len(waited) :], watch.waited() - looked)
        used = energy.joules(zones, drawn, energy.read(zones)) / len(taken) if zones else None
        lost = waited if watched else [0.0] * len(taken)
        counted, disturbed = undisturbed(taken, lost, watch.stolen(cpus) - stolen)
    return {"seconds": counted, "disturbed": disturbed, "peak_bytes": peak_bytes(), "joules": used}


def _shares(seconds: list[float], waited: float) -> list[float]:
    """What calls that were looked at together waited for, each its share."""
    return [waited * each / sum(seconds) for each in seconds]


def peak_bytes() -> int:
    """The largest resident size of this process so far.

    VmHWM where there is one: getrusage's figure starts from the parent's size on Linux.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()

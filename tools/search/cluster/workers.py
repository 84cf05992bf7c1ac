"""Candidates made on the machines of a Ray cluster: one worker a machine, which holds its lease.

A machine does one thing at a time, so that what is timed is alone there. Trials that a lost worker was at are
begun again elsewhere; what a search has seen of machines doesn't decide what it tries (`explore`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ....ir.errors import ConfigError, GraphwrightError
from ..goal import Goal
from ..making import Candidate, Evaluate, Found, window
from ..tried import Tried
from .joined import flag
from .machines import Machine, here, machines
from .worker import Ready, Worker, unpacked

LOOK = 10.0  # seconds between looks at which machines there are, and before one is used that lost a worker


class Cluster:
    """Workers on every machine that takes part. Use it in a `with`, inside of `joined`.

    begin: makes what makes candidates, on a machine. shared: what all of them are told by (`Worker.make`).

    Raises:
        ConfigError: no machine takes part.
    """

    apart = True

    def __init__(
        self,
        begin: Callable[[], Evaluate],
        goal: Goal,
        say: Callable[[str], None] = lambda sentence: None,
        progress: Callable[[str], None] = lambda description: None,
    ) -> None:
        self._begin, self._goal, self._say, self._progress = begin, goal, say, progress
        self._known: dict[str, str] = {}
        self._machines: list[Machine] = []
        self._looked = -LOOK
        self._workers: dict[str, Any] = {}  # node -> actor
        self._lost: dict[str, float] = {}  # node -> when a worker there was lost
        self._queue: deque[tuple[Candidate, Sequence[Tried]]] = deque()
        # What is made: result to come -> node, candidate and what it is decided from.
        self._running: dict[Any, tuple[str, Candidate, Sequence[Tried]]] = {}
        self.shared: Any = None
        self._look()
        if not self._machines:
            mine = here().model
            raise ConfigError(
                "no machine of the cluster can be measured on for this search: `ray start` this one, or one "
                f"like it, with {flag(mine)}{self._whys()}"
            )
        self.several(len(self._machines))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in list(self._workers):
            self._end(node)

    def several(self, at_once: int) -> None:
        """How many are made at once, at most."""
        self.at_once, self.ahead = at_once, window(at_once)

    def ask(self, name: str) -> Any:
        """What a method of what makes candidates gives, on any machine.

        Raises:
            GraphwrightError: its own, or no machine is left.
        """
        import ray

        for machine in self._machines:
            try:
                given, why = ray.get(self._worker(machine).ask.remote(name))
            except ray.exceptions.RayError:
                self._end(machine.node)
                continue
            if why:
                raise GraphwrightError(why)
            return given
        raise GraphwrightError("every worker was lost before the search began: see Ray's logs")

    def start(self, candidate: Candidate, known: Sequence[Tried]) -> None:
        self._queue.append((candidate, known))
        self._share_out()

    def wait(self) -> tuple[int, Found | None]:
        """As Workers.

        Raises:
            GraphwrightError: no machine is left.
        """
        import ray

        while True:
            self._share_out()
            if not self._running and not self._machines:
                raise GraphwrightError(
                    "no machine of the cluster is left: what was tried is kept, and the same command with "
                    f"--resume goes on from there once there is one{self._whys()}"
                )
            self._progress(f"{len(self._running)} at once on {len(self._machines)} machines")
            if not self._running:
                time.sleep(0.1)
                continue
            results, _ = ray.wait(list(self._running), num_returns=1, timeout=1.0)
            if results and (landed := self._landed(results[0])):
                return landed

    def _landed(self, result: Any) -> tuple[int, Found | None] | None:
        """As `wait`; None where its machine turned out to be unfit, and it is to be made on another."""
        import ray

        node, candidate, known = self._running.pop(result)
        try:
            ready: Ready = ray.get(result)
        except ray.exceptions.RayError:  # the worker was killed, or its machine was
            self._end(node)
            self._lost[node], self._looked = time.monotonic(), -LOOK
            return candidate.number, None
        if ready.found is None:
            host = next(one.host for one in self._machines if one.node == node)
            self._known[node] = f"{host} is left out: {ready.unfit}"
            self._say(self._known[node])
            self._end(node)
            self._machines = [one for one in self._machines if one.node != node]
            self._queue.appendleft((candidate, known))
            return None
        save = partial(unpacked, ready.bundle) if ready.bundle is not None else None
        return candidate.number, replace(ready.found, save=save)

    def _share_out(self) -> None:
        """Give what waits to machines that have nothing to do."""
        if self._queue and time.monotonic() - self._looked > LOOK:
            self._look()
        busy = {node for node, _, _ in self._running.values()}
        now = time.monotonic()
        for machine in self._machines:
            if not self._queue or len(busy) >= self.at_once:
                return
            if machine.node not in busy and now - self._lost.get(machine.node, -LOOK) >= LOOK:
                candidate, known = self._queue.popleft()
                result = self._worker(machine).make.remote(candidate, known, self.shared)
                self._running[result] = machine.node, candidate, known
                busy.add(machine.node)

    def _look(self) -> None:
        """Which machines there are; a sentence for each new one that is left out."""
        before = set(self._known)
        self._machines = machines(self._known, here())
        self._looked = time.monotonic()
        for node, why in self._known.items():
            if why and node not in before:
                self._say(why)

    def _whys(self) -> str:
        """Why machines are left out."""
        return "".join(f"; {why}" for why in self._known.values() if why)

    def _worker(self, machine: Machine) -> Any:
        if machine.node not in self._workers:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

            lease = {
                "num_cpus": machine.cpus,
                "resources": {machine.resource: 1},
                "scheduling_strategy": On(machine.node, soft=False),
                "max_restarts": 0,
            }
            self._workers[machine.node] = ray.remote(Worker).options(**lease).remote(self._begin, self._goal)
        return self._workers[machine.node]

    def _end(self, node: str) -> None:
        """End a machine's worker, which gives its lease back."""
        import ray

        if (worker := self._workers.pop(node, None)) is not None:
            ray.kill(worker)

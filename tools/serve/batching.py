"""Texts of many requests computed together, and each answer brought to its asker. Standard library only."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from .budget import Budget
from .refusal import Overloaded, Refusal

WINDOW = 256  # texts that wait longest, among which those of like length are looked for
_SMOOTH = 0.2  # how much the last call counts in the pace


@dataclass(frozen=True)
class Lane:
    """A model's calls. run: texts (tokenized) to results, one each, in their order; called on a worker's
    thread. budget: of one call."""

    run: Callable[[list[Any]], Sequence[Any]]
    budget: Budget


@dataclass(frozen=True)
class Ran:
    """A call that was made. lengths: tokens of each text. seconds: that it took."""

    lane: str
    lengths: tuple[int, ...]
    seconds: float


@dataclass(eq=False)
class Job:
    """A request's texts. done: all results in order, or the first failure."""

    lane: str
    texts: Sequence[Any]
    lengths: Sequence[int]
    done: asyncio.Future[list[Any]]
    results: list[Any] = field(default_factory=list)
    left: int = 0
    numbers: list[int] = field(default_factory=list)


class Batcher:
    """Calls within a budget of tokens, of whatever waits when a worker is free. Nothing is held back to fill
    a call: while one is computed the next one's texts come in.

    Lives on the thread of an event loop; only lanes' `run` is called elsewhere. A call that fails is tried
    text by text, so that a text that fails takes no other with it.

    Args:
        lanes: by model name.
        executor: its threads compute.
        parallel: calls at once, over all lanes.
        most: tokens that may wait.
        observe: told of every call.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        executor: Executor,
        parallel: int,
        most: int,
        observe: Callable[[Ran], None] = lambda ran: None,
    ) -> None:
        self._lanes, self._executor, self._parallel, self.most = dict(lanes), executor, parallel, most
        self._observe = observe
        self._waiting: dict[str, OrderedDict[int, tuple[Job, int]]] = {name: OrderedDict() for name in lanes}
        self._numbers = count()
        self._pace = 0.0  # tokens a second, of one worker
        self._running: dict[asyncio.Future[Any], float] = {}  # and when each began
        self.waiting_tokens = 0

    def submit(self, lane: str, texts: Sequence[Any], lengths: Sequence[int]) -> Job:
        """Let texts wait for their turn.

        Args:
            lengths: tokens of each; none larger than the lane's budget.

        Raises:
            Refusal: together they are more than may ever wait.
            Overloaded: there is no room now.
        """
        tokens = sum(lengths)
        if tokens > self.most:
            raise Refusal(
                413,
                f"the request's texts have {tokens} tokens together and at most {self.most} are taken at "
                "once: send them in several requests",
            )
        if self.waiting_tokens + tokens > self.most:
            raise Overloaded("too many texts are waiting: try again later", self.seconds(self.waiting_tokens))
        loop = asyncio.get_running_loop()
        job = Job(lane, texts, lengths, loop.create_future(), [None] * len(texts), len(texts))
        for index in range(len(texts)):
            number = next(self._numbers)
            job.numbers.append(number)
            self._waiting[lane][number] = (job, index)
        self.waiting_tokens += tokens
        self._start()
        return job

    def seconds(self, tokens: int) -> float:
        """How long so many tokens take, by the calls before; 1 before there were any."""
        return tokens / (self._pace * self._parallel) if self._pace else 1.0

    def withdraw(self, job: Job) -> int:
        """Take out of the waiting what has not begun of a job. How many texts that were."""
        waiting, taken = self._waiting[job.lane], 0
        for number in job.numbers:
            found = waiting.pop(number, None)
            if found is not None:
                taken += 1
                self.waiting_tokens -= job.lengths[found[1]]
        job.numbers.clear()
        return taken

    @property
    def busy_for(self) -> float:
        """Seconds that the oldest call being computed has taken so far; 0 where there is none."""
        return time.perf_counter() - min(self._running.values()) if self._running else 0.0

    async def idle(self) -> None:
        """Returns when nothing waits and nothing is computed."""
        while self._running:
            await asyncio.wait(self._running)
            await asyncio.sleep(0)  # what waits for a worker starts

    def _start(self) -> None:
        while len(self._running) < self._parallel:
            lanes = [name for name, waiting in self._waiting.items() if waiting]
            if not lanes:
                return
            name = min(lanes, key=lambda name: next(iter(self._waiting[name])))
            self._call(name, self._take(name))

    def _take(self, name: str) -> list[tuple[Job, int]]:
        waiting = self._waiting[name]
        window = list(islice(waiting.items(), WINDOW))
        chosen = self._lanes[name].budget.choose([job.lengths[index] for _, (job, index) in window])
        taken = []
        for at in chosen:
            number, (job, index) = window[at]
            del waiting[number]
            self.waiting_tokens -= job.lengths[index]
            taken.append((job, index))
        return taken

    def _call(self, name: str, taken: list[tuple[Job, int]]) -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        texts = [job.texts[index] for job, index in taken]
        future = loop.run_in_executor(self._executor, _each, self._lanes[name].run, texts)
        self._running[future] = began

        def ended(_: Any) -> None:
            del self._running[future]
            lengths = tuple(job.lengths[index] for job, index in taken)
            ran = Ran(name, lengths, time.perf_counter() - began)
            pace = sum(lengths) / max(ran.seconds, 1e-6)
            self._pace = pace if not self._pace else (1 - _SMOOTH) * self._pace + _SMOOTH * pace
            self._deliver(taken, future)
            self._observe(ran)
            self._start()

        future.add_done_callback(ended)

    def _deliver(self, taken: list[tuple[Job, int]], future: asyncio.Future[list[Any]]) -> None:
        error = future.exception()
        results = future.result() if error is None else [error] * len(taken)
        for (job, index), result in zip(taken, results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, BaseException):
                job.done.set_exception(result)
                self.withdraw(job)
                continue
            job.results[index] = result
            job.left -= 1
            if not job.left:
                job.done.set_result(job.results)


def _each(run: Callable[[list[Any]], Sequence[Any]], texts: list[Any]) -> list[Any]:
    """A result a text; where the call failed, each text's own result or failure."""
    try:
        return list(run(texts))
    except Exception as error:
        if len(texts) == 1:
            return [error]
    return [_each(run, [text])[0] for text in texts]
